"use strict";
// What one unit of a stack of layers can see, along one axis. A layer is {kernel, stride, dilation, padding}.

/** For the output of every layer: `size` of the receptive field and `jump` between neighbours, in input units, and
 * `start`, the first input unit that unit 0 reaches for (negative: padding). Source: Dumoulin & Visin, A guide to
 * convolution arithmetic for deep learning, 2016. */
function receptiveFields(layers) {
  let [size, jump, start] = [1, 1, 0];
  return layers.map(({ kernel, stride, dilation, padding }) => {
    size += (kernel - 1) * dilation * jump;
    start -= padding * jump;
    jump *= stride;
    return { size, jump, start };
  });
}

/** Numbers of units of every layer's output, `length` being that of the input. */
function stackLengths(layers, length) {
  const lengths = [length];
  for (const { kernel, stride, dilation, padding } of layers) {
    lengths.push(outputs(lengths.at(-1), kernel, stride, padding, dilation));
  }
  return lengths;
}

/** The units of the input and of every layer that the chosen unit of the last layer depends on, bottom first. What
 * falls into padding is in no list. */
function reachedUnits(layers, length, unit) {
  const lengths = stackLengths(layers, length);
  const reached = [[unit]];
  for (let number = layers.length - 1; number >= 0; number--) {
    const { kernel, stride, dilation, padding } = layers[number];
    const below = new Set();
    for (const one of reached[0]) {
      for (let tap = 0; tap < kernel; tap++) {
        const place = one * stride + tap * dilation - padding;
        if (place >= 0 && place < lengths[number]) below.add(place);
      }
    }
    reached.unshift([...below].sort((a, b) => a - b));
  }
  return reached;
}
