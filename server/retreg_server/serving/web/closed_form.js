// Rigid, similarity and affine matrices from weighted point pairs: retreg/closed_form.py in the
// browser. Points are [x, y, z] LPS mm; both give the same numbers (tests/look/vectors.json).

import { cross, determinant, dot, minus, norm, singular, solve } from "./matrices.js";

export const FLAT = 1e-7;

const mean = (points, weights) => {
  const total = weights.reduce((sum, w) => sum + w, 0);
  return [0, 1, 2].map((c) => points.reduce((sum, p, i) => sum + weights[i] * p[c], 0) / total);
};

// Checked pairs; those of weight 0 are left out. Throws an Error with a sentence for people.
export function pairsOf(fixed, moving, weights) {
  const used = fixed.map((_, i) => i).filter((i) => weights[i] > 0);
  if (used.length < 3) {
    throw new Error(`${used.length} points are used; at least 3 are needed.`);
  }
  const average = used.reduce((sum, i) => sum + weights[i], 0) / used.length;
  const pairs = {
    fixed: used.map((i) => fixed[i]),
    moving: used.map((i) => moving[i]),
    weights: used.map((i) => weights[i] / average),
  };
  const ones = used.map(() => 1);
  for (const side of ["fixed", "moving"]) {
    const middle = mean(pairs[side], ones);
    const spread = singular(pairs[side].map((p) => minus(p, middle)));
    if (!(spread.values[1] > FLAT * spread.values[0])) {
      throw new Error(`The ${side} points lie on one line; use a point beside it.`);
    }
    pairs[`${side}Spread`] = spread;
    pairs[`${side}Centroid`] = mean(pairs[side], pairs.weights);
    if (side === "fixed") pairs.length = Math.hypot(...spread.values) / Math.sqrt(used.length);
  }
  const flat = ({ values }) => values[2] <= FLAT * values[0];
  pairs.fixedAxes = pairs.fixedSpread.axes.slice(0, flat(pairs.fixedSpread) ? 2 : 3);
  const [f, m] = [pairs.fixedSpread, pairs.movingSpread];
  const parallel = flat(f) && flat(m) && Math.abs(dot(f.axes[2], m.axes[2])) > 1 - FLAT;
  pairs.parallelNormal = parallel ? f.axes[2] : null;
  return pairs;
}

// The proper rotation of the weighted Procrustes problem, and its scale (Umeyama 1991, eq. 39-43).
function rotationOf(pairs) {
  const fixed = pairs.fixed.map((p) => minus(p, pairs.fixedCentroid));
  const moving = pairs.moving.map((p) => minus(p, pairs.movingCentroid));
  const inPlane = [0, 1, 2].map((r) => [0, 1, 2].map((c) =>
    fixed.reduce((sum, p, i) => sum + pairs.weights[i] * moving[i][r] * p[c], 0)));
  const size = 10 * Math.hypot(...inPlane.flat());
  const n = pairs.parallelNormal;
  const pinned = inPlane.map((row, r) => row.map((x, c) => x + (n ? size * n[r] * n[c] : 0)));
  const { axes, columns, values } = singular(pinned);
  const v = [axes[0], axes[1], cross(axes[0], axes[1])];
  const u = [0, 1].map((k) => Array.from(columns[k], (x) => x / values[k]));
  u.push(cross(u[0], u[1])); // the third pair, with the sign that makes no reflection
  const rotation = [0, 1, 2].map((r) => [0, 1, 2].map((c) =>
    u[0][r] * v[0][c] + u[1][r] * v[1][c] + u[2][r] * v[2][c]));
  const trace = rotation.reduce((sum, row, r) => sum + dot(row, inPlane[r]), 0);
  return [rotation, trace / fixed.reduce((sum, p, i) => sum + pairs.weights[i] * dot(p, p), 0)];
}

function fromLinear(pairs, linear) {
  const rows = linear.map((row, r) =>
    [...row, pairs.movingCentroid[r] - dot(row, pairs.fixedCentroid)]);
  return [...rows, [0, 0, 0, 1]];
}

export const rigidMatrix = (pairs) => fromLinear(pairs, rotationOf(pairs)[0]);

export function similarityMatrix(pairs) {
  const [rotation, scale] = rotationOf(pairs);
  if (!(scale > 0)) {
    throw new Error("No rotation brings the points together; check which belongs to which.");
  }
  return fromLinear(pairs, rotation.map((row) => row.map((x) => scale * x)));
}

export function affineMatrix(pairs) {
  const axes = pairs.fixedAxes;
  const inside = pairs.fixed.map((p) => {
    const away = minus(p, pairs.fixedCentroid);
    return axes.map((axis) => dot(away, axis));
  });
  const moving = pairs.moving.map((p) => minus(p, pairs.movingCentroid));
  const weighted = (f) => inside.reduce((sum, x, i) => sum + pairs.weights[i] * f(x, i), 0);
  const normal = axes.map((_, a) => axes.map((_, b) => weighted((x) => x[a] * x[b])));
  const right = axes.map((_, a) => [0, 1, 2].map((r) => weighted((x, i) => x[a] * moving[i][r])));
  const coefficients = solve(normal, right);
  const linear = [0, 1, 2].map((r) => [0, 1, 2].map((c) =>
    axes.reduce((sum, axis, k) => sum + coefficients[k][r] * axis[c], 0)));
  if (axes.length === 2) {
    const across = cross(axes[0], axes[1]);
    const turned = rotationOf(pairs)[0].map((row) => dot(row, across));
    for (const r of [0, 1, 2]) for (const c of [0, 1, 2]) linear[r][c] += turned[r] * across[c];
  }
  const columns = [0, 1, 2].map((c) => norm(linear.map((row) => row[c])));
  if (Math.abs(determinant(linear)) < FLAT * columns[0] * columns[1] * columns[2]) {
    throw new Error("The best affine transform flattens the image.");
  }
  return fromLinear(pairs, linear);
}
