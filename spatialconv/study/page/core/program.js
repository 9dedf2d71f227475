"use strict";
// What a nest does, two ways: as a function made of it, fast, and step by step, for the walk.

/** A function of `touch(buffer number, offset in elements)` that makes every access of the nest in order. */
function compileNest(nest) {
  const numbers = Object.fromEntries(nest.buffers.map((one, number) => [one.name, number]));
  const lines = [];
  const emit = (body) => {
    for (const step of body) {
      if (step.kind === "loop") {
        const stop =
          step.stops.length === 1 ? written(step.stops[0]) : `Math.min(${step.stops.map(written).join(", ")})`;
        const { name } = step;
        lines.push(
          `for (let ${name} = ${written(step.start)}, end = ${stop}; ${name} < end; ${name} += ${step.step}) {`,
        );
        emit(step.body);
        lines.push("}");
      } else if (step.kind === "guard") {
        const value = written(step.value);
        lines.push(`if (${step.low} <= ${value} && ${value} < ${step.high}) {`);
        emit(step.body);
        lines.push("}");
      } else if (step.kind === "let") {
        lines.push(`const ${step.name} = ${written(step.value)};`);
      } else {
        for (const touch of step.touches) lines.push(`touch(${numbers[touch.buffer]}, ${written(touch.offset)});`);
      }
    }
  };
  emit(nest.body);
  return new Function("touch", `"use strict";\n${lines.join("\n")}`);
}

/** Every access in order: {step, touch, number of its buffer, offset, indices}; `indices` changes with every step. */
function* walkNest(nest) {
  const numbers = Object.fromEntries(nest.buffers.map((one, number) => [one.name, number]));
  const indices = {};
  function* steps(body) {
    for (const step of body) {
      if (step.kind === "loop") {
        const stop = Math.min(...step.stops.map((one) => valueOf(one, indices)));
        for (let value = valueOf(step.start, indices); value < stop; value += step.step) {
          indices[step.name] = value;
          yield* steps(step.body);
        }
        delete indices[step.name];
      } else if (step.kind === "guard") {
        const value = valueOf(step.value, indices);
        if (step.low <= value && value < step.high) yield* steps(step.body);
      } else if (step.kind === "let") {
        indices[step.name] = valueOf(step.value, indices);
      } else {
        for (const touch of step.touches) {
          yield { step, touch, number: numbers[touch.buffer], offset: valueOf(touch.offset, indices), indices };
        }
      }
    }
  }
  yield* steps(nest.body);
}

/** How many accesses the nest makes, found without making them: passes of a loop that are all alike are multiplied. */
function countAccesses(nest) {
  const indices = {};
  const decides = (body, name) => {
    const names = new Set([name]);
    const uses = (expression) => Object.keys(expression.terms).some((term) => names.has(term));
    const inside = (steps) =>
      steps.some((step) => {
        if (step.kind === "let" && uses(step.value)) names.add(step.name);
        if (step.kind === "guard") return uses(step.value) || inside(step.body);
        return step.kind === "loop" && ([step.start, ...step.stops].some(uses) || inside(step.body));
      });
    return inside(body);
  };
  const count = (body) => {
    let sum = 0;
    for (const step of body) {
      if (step.kind === "let") indices[step.name] = valueOf(step.value, indices);
      else if (step.kind === "guard") {
        const value = valueOf(step.value, indices);
        if (step.low <= value && value < step.high) sum += count(step.body);
      } else if (step.kind === "loop") {
        const start = valueOf(step.start, indices);
        const stop = Math.min(...step.stops.map((one) => valueOf(one, indices)));
        const runs = Math.max(Math.ceil((stop - start) / step.step), 0);
        const each = decides(step.body, step.name) ? 1 : runs;
        for (let value = start; value < stop; value += step.step * each) {
          indices[step.name] = value;
          sum += count(step.body) * each;
        }
      } else sum += step.touches.length;
    }
    return sum;
  };
  return count(nest.body);
}
