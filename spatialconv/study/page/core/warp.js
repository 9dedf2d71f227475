"use strict";
// One load instruction of a GPU's warp: 32 lanes, each with an address, fetched in sectors of 32 bytes.

const LANES = 32;
const SECTOR = 32;
const LANE_AXES = ["pixel", "channel", "filter"];
const WEIGHT_LAYOUTS = ["oc ic kh kw", "kh kw ic oc", "untied: p oc ic kh kw", "untied: oc ic kh kw p"];

/** Every load of the warp's tensor, as {pixel, channel, filter, kh, kw} of its first lane, at most `limit` of them,
 * evenly spaced, and how many there are. Groups are not modelled. */
function warpRequests(problem, lane, limit = 60000) {
  const { ic, oc, oh, ow, kh, kw } = problem;
  const counts = { pixel: oh * ow, channel: ic, filter: lane === "filter" ? oc : 1, kh, kw };
  counts[lane] = Math.ceil(counts[lane] / LANES);
  const total = Object.values(counts).reduce((product, count) => product * count, 1);
  // An odd stride: an even one would meet every second row or channel only.
  const stride = total > limit ? Math.ceil(total / limit) | 1 : 1;
  const requests = [];
  for (let number = 0; number < total; number += stride) {
    let left = number;
    const request = {};
    for (const [name, count] of Object.entries(counts)) {
      request[name] = (left % count) * (name === lane ? LANES : 1);
      left = Math.floor(left / count);
    }
    requests.push(request);
  }
  return { requests, total };
}

/** The offset in bytes that each lane loads, or null where it loads nothing: outside the picture, or beyond the end. */
function laneAddresses(problem, { tensor, layout, weights, lane }, request) {
  const { ic, ih, iw, oc, oh, ow, kh, kw, itemsize } = problem;
  return range(LANES).map((number) => {
    const one = { ...request, [lane]: request[lane] + number };
    if (one.pixel >= oh * ow || one.channel >= ic || one.filter >= oc) return null;
    const row = Math.floor(one.pixel / ow) * problem.sh + one.kh * problem.dh - problem.ph;
    const column = (one.pixel % ow) * problem.sw + one.kw * problem.dw - problem.pw;
    if (row < 0 || row >= ih || column < 0 || column >= iw) return null;
    if (tensor === "input") {
      const place = layout === "nchw" ? (one.channel * ih + row) * iw + column : (row * iw + column) * ic + one.channel;
      return place * itemsize;
    }
    const tap = one.kh * kw + one.kw;
    const filter = (one.filter * ic + one.channel) * kh * kw + tap;
    if (weights === WEIGHT_LAYOUTS[0]) return filter * itemsize;
    if (weights === WEIGHT_LAYOUTS[1]) return ((tap * ic + one.channel) * oc + one.filter) * itemsize;
    if (weights === WEIGHT_LAYOUTS[2]) return (one.pixel * oc * ic * kh * kw + filter) * itemsize;
    return (filter * oh * ow + one.pixel) * itemsize;
  });
}

/** The sectors that a request fetches, in order. */
function sectorsOf(addresses) {
  const wanted = addresses.filter((address) => address !== null).map((address) => Math.floor(address / SECTOR));
  return [...new Set(wanted)].sort((a, b) => a - b);
}

/** Mean sectors of a request, and the share of fetched bytes that some lane asked for, counted once for each lane. */
function warpSummary(problem, options) {
  const { requests, total } = warpRequests(problem, options.lane);
  let [made, sectors, useful] = [0, 0, 0];
  for (const request of requests) {
    const addresses = laneAddresses(problem, options, request);
    const found = sectorsOf(addresses);
    if (found.length === 0) continue;
    made++;
    sectors += found.length;
    useful += new Set(addresses.filter((address) => address !== null)).size * problem.itemsize;
  }
  return { sectors: sectors / made, useful: useful / (sectors * SECTOR), made, examined: requests.length, total };
}
