// The measured transform as displacements on a lattice, and images on their grids.

import { inverse, mapped, minus, norm, plus, solve } from "./matrices.js";

const ARRAYS = { int16: [Int16Array, 0.01], float32: [Float32Array, 1], float64: [Float64Array, 1] };

export function gridOf({ size, world_from_index: worldFromIndex }) {
  return { size, worldFromIndex, indexFromWorld: inverse(worldFromIndex) };
}

// The field of a message (docs/protocol.md): nodes are world points, vectors hold x, y, z of each.
export function fieldOf(message) {
  const grid = gridOf(message.grid), [kind, unit] = ARRAYS[message.encoding];
  const bytes = Uint8Array.from(atob(message.data), (c) => c.charCodeAt(0));
  const planes = new kind(bytes.buffer), count = planes.length / 3;
  const vectors = new Float64Array(3 * count);
  for (let n = 0; n < count; n++) {
    for (let c = 0; c < 3; c++) vectors[3 * n + c] = planes[c * count + n] * unit;
  }
  const map = (point) => plus(point, interpolated(grid, vectors, point));
  return { ...latticeOf(grid), vectors, map, back: (target, start) => back(map, target, start) };
}

function latticeOf(grid) {
  const [ni, nj, nk] = grid.size, nodes = [];
  for (let k = 0; k < nk; k++) for (let j = 0; j < nj; j++) for (let i = 0; i < ni; i++) {
    nodes.push(mapped(grid.worldFromIndex, [i, j, k]));
  }
  return { grid, nodes };
}

// A lattice over the same place with so many nodes at most: {grid, nodes}.
export function coarser({ grid }, most) {
  const sizeAt = (step) => grid.size.map((n) => Math.ceil((n - 1) / step) + 1);
  let step = 1;
  while (sizeAt(step).reduce((product, n) => product * n) > most) step++;
  const matrix = grid.worldFromIndex.map((row) => row.map((x, c) => (c < 3 ? step * x : x)));
  return latticeOf(gridOf({ size: sizeAt(step), world_from_index: matrix }));
}

function interpolated({ size, indexFromWorld }, vectors, point) {
  const index = mapped(indexFromWorld, point), low = [], upper = [], out = [0, 0, 0];
  for (let c = 0; c < 3; c++) {
    const x = Math.min(Math.max(index[c], 0), size[c] - 1);
    low[c] = Math.min(Math.floor(x), Math.max(size[c] - 2, 0));
    upper[c] = x - low[c];
  }
  for (let corner = 0; corner < 8; corner++) {
    let weight = 1, place = 0, stride = 1;
    for (let c = 0; c < 3; c++) {
      const up = (corner >> c) & 1;
      weight *= up ? upper[c] : 1 - upper[c];
      place += stride * Math.min(low[c] + up, size[c] - 1);
      stride *= size[c];
    }
    if (weight) for (let c = 0; c < 3; c++) out[c] += weight * vectors[3 * place + c];
  }
  return out;
}

// Newton's steps from start to the point that map takes to target.
export function back(map, target, start) {
  let point = [...start];
  for (let step = 0; step < 40; step++) {
    const here = map(point), left = minus(target, here);
    if (norm(left) < 1e-6) break;
    const columns = [0, 1, 2].map((c) => minus(map(point.map((x, k) => x + (k === c))), here));
    const rows = [0, 1, 2].map((r) => columns.map((column) => column[r]));
    point = plus(point, solve(rows, left.map((x) => [x])).map(([x]) => x));
  }
  return point;
}

// Displacements of a map at the nodes of a field or lattice, as a texture: x, y, z, 0 of each.
export function sampled(lattice, map) {
  const texels = new Float32Array(4 * lattice.nodes.length);
  if (map === lattice.map) {
    for (let n = 0; n < lattice.nodes.length; n++) {
      texels.set(lattice.vectors.subarray(3 * n, 3 * n + 3), 4 * n);
    }
    return texels;
  }
  lattice.nodes.forEach((node, n) => texels.set(minus(map(node), node), 4 * n));
  return texels;
}
