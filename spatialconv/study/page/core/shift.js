"use strict";
// A picture of one row, shifted around a circle: what a detector behind a pooling layer answers.

const SIGNALS = {
  "two spikes": [0, 0, 0, 3, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  edge: [0, 0, 0, 1, 3, 3, 3, 3, 3, 3, 3, 1, 0, 0, 0, 0],
  "soft hill": [0, 0, 0.2, 0.7, 1.5, 2.3, 2.8, 3, 2.8, 2.3, 1.5, 0.7, 0.2, 0, 0, 0],
};
const POOLINGS = ["no pooling", "max pool, stride 2", "blur, then stride 2"];

function shifted(signal, by) {
  const { length } = signal;
  return signal.map((_, place) => signal[(((place - by) % length) + length) % length]);
}

function circular(signal, place) {
  return signal[((place % signal.length) + signal.length) % signal.length];
}

/** The signal behind the pooling: the maximum of two neighbours, with stride 2 or, blurred by 1 2 1 in between (Zhang,
 * Making convolutional networks shift-invariant again, 2019), dense maxima of which every second is kept. */
function pooled(signal, pooling) {
  if (pooling === POOLINGS[0]) return signal;
  const maxima = signal.map((value, place) => Math.max(value, circular(signal, place + 1)));
  const blurred = maxima.map(
    (value, place) => (circular(maxima, place - 1) + 2 * value + circular(maxima, place + 1)) / 4,
  );
  const kept = pooling === POOLINGS[1] ? maxima : blurred;
  return kept.filter((_, place) => place % 2 === 0);
}

/** The best match, at any place, of what is behind the pooling with the filter that fits the unshifted signal: 1 when
 * it is the same up to a shift (Cauchy and Schwarz). */
function detectorScore(signal, by, pooling) {
  const filter = pooled(signal, pooling);
  const seen = pooled(shifted(signal, by), pooling);
  const energy = Math.sqrt(filter.reduce((sum, v) => sum + v * v, 0) * seen.reduce((sum, v) => sum + v * v, 0));
  const sums = seen.map((_, place) => filter.reduce((sum, value, tap) => sum + value * circular(seen, place + tap), 0));
  return Math.max(...sums) / energy;
}
