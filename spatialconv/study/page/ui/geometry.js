"use strict";
// Where each element of a buffer stands in its map: channels side by side as small pictures, filters as rows.

const MOST_CELLS = 2200;

/** {columns, rows, cell(indices) -> [column, row] or null, at(column, row) -> indices or null}, or null where the
 * map would be too large. `slice`: which filter of an untied or dense weight is shown, as [oh, ow] or [o]. */
function geometryOf(from, problem, slice) {
  let found;
  const { ic, ih, iw, oc, oh, ow } = problem;
  const axes = from.axes.join(" ");
  if (axes === "n i") found = flattened(pictures(from.shape[0], ic, ih, iw), [ic, ih, iw]);
  else if (axes === "n o") found = flattened(pictures(from.shape[0], oc, oh, ow), [oc, oh, ow]);
  else if (axes === "o i") found = sliced(flattened(pictures(1, ic, ih, iw), [ic, ih, iw]), slice);
  else if (from.name === "columns") found = matrix(from.shape);
  else if (from.name === "weight" && from.shape.length === 6) found = sliced(filters(...from.shape.slice(2)), slice);
  else found = from.name === "weight" ? filters(...from.shape) : pictures(...from.shape);
  found.has = found.all ? () => true : (x, y) => found.at(x, y) !== null;
  return found.columns > MOST_CELLS || found.rows > MOST_CELLS ? null : found;
}

function pictures(images, channels, height, width) {
  const count = images * channels;
  const across = Math.min(count, Math.max(1, Math.ceil(Math.sqrt((count * (height + 1)) / (width + 1)))));
  const gap = count > 1 ? 1 : 0;
  const down = Math.ceil(count / across);
  return {
    columns: across * (width + gap) - gap,
    rows: down * (height + gap) - gap,
    cell: ([n, channel, row, column]) => {
      const panel = n * channels + channel;
      return [(panel % across) * (width + gap) + column, Math.floor(panel / across) * (height + gap) + row];
    },
    at: (x, y) => {
      const [left, top] = [Math.floor(x / (width + gap)), Math.floor(y / (height + gap))];
      const [column, row] = [x - left * (width + gap), y - top * (height + gap)];
      const panel = top * across + left;
      if (column >= width || row >= height || panel >= count) return null;
      return [Math.floor(panel / channels), panel % channels, row, column];
    },
  };
}

function filters(count, channels, kh, kw) {
  const gap = kh * kw > 1 ? 1 : 0;
  return {
    columns: channels * (kw + gap) - gap,
    rows: count * (kh + gap) - gap,
    cell: ([oc, ic, row, column]) => [ic * (kw + gap) + column, oc * (kh + gap) + row],
    at: (x, y) => {
      const [ic, oc] = [Math.floor(x / (kw + gap)), Math.floor(y / (kh + gap))];
      const [column, row] = [x - ic * (kw + gap), y - oc * (kh + gap)];
      return column >= kw || row >= kh ? null : [oc, ic, row, column];
    },
  };
}

/** Pictures of a buffer whose last index runs over all of (channels, rows, columns). */
function flattened(map, [, height, width]) {
  return {
    ...map,
    cell: ([n, i]) => map.cell([n, Math.floor(i / (height * width)), Math.floor(i / width) % height, i % width]),
    at: (x, y) => {
      const found = map.at(x, y);
      return found && [found[0], (found[1] * height + found[2]) * width + found[3]];
    },
  };
}

/** The part of a buffer whose first indices are those of the slice. */
function sliced(map, slice) {
  const flat = slice.length === 1;
  return {
    ...map,
    cell: (indices) => {
      if (slice.some((one, axis) => indices[axis] !== one)) return null;
      return map.cell(flat ? [0, indices[1]] : indices.slice(slice.length));
    },
    at: (x, y) => {
      const found = map.at(x, y);
      return found && (flat ? [...slice, found[1]] : [...slice, ...found]);
    },
  };
}

/** (ic kh kw, oh ow) or (oh ow, kh kw ic) as rows and columns of one matrix. */
function matrix([a, b, c, d, e]) {
  return {
    columns: d * e,
    rows: a * b * c,
    cell: (indices) => [indices[3] * e + indices[4], (indices[0] * b + indices[1]) * c + indices[2]],
    at: () => null,
    all: true,
  };
}
