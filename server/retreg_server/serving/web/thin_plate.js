// The smoothing thin-plate spline with the kernel -r: retreg/splines/thin_plate.py in the browser.

import { affineMatrix } from "./closed_form.js";
import { dot, mapped, minus, norm, solve } from "./matrices.js";

// The spline through checked pairs; smoothing is dimensionless, Infinity gives the affine.
export function splineOf(pairs, smoothing) {
  const affine = affineMatrix(pairs), { fixed, weights, fixedAxes, length } = pairs;
  if (smoothing === Infinity) return { matrix: affine, centres: [], coefficients: [] };
  const scaled = fixed.map((p) => minus(p, pairs.fixedCentroid).map((x) => x / length));
  const basis = scaled.map((p) => [1, ...fixedAxes.map((axis) => dot(p, axis))]);
  const system = scaled.map((p, i) => [
    ...scaled.map((q, k) => (i === k ? smoothing / weights[i] : -norm(minus(p, q)))), ...basis[i],
  ]);
  const none = basis[0].map(() => 0);
  basis[0].forEach((_, k) => system.push([...basis.map((row) => row[k]), ...none]));
  const right = fixed.map((p, i) => minus(pairs.moving[i], mapped(affine, p)));
  const solution = solve(system, [...right, ...none.map(() => [0, 0, 0])]);
  const n = fixed.length, polynomial = solution.slice(n);
  const matrix = affine.map((row) => [...row]);
  for (const r of [0, 1, 2]) {
    const linear = [0, 1, 2].map((c) => fixedAxes.reduce(
      (sum, axis, k) => sum + axis[c] * polynomial[1 + k][r] / length, 0));
    linear.forEach((x, c) => { matrix[r][c] += x; });
    matrix[r][3] += polynomial[0][r] - dot(linear, pairs.fixedCentroid);
  }
  const coefficients = solution.slice(0, n).map((c) => c.map((x) => x / length));
  return { matrix, centres: fixed, coefficients };
}

// Flat copies make the loop over many places several times faster.
export function splineMap({ matrix, centres, coefficients }) {
  const p = Float64Array.from(centres.flat()), c = Float64Array.from(coefficients.flat());
  return (point) => {
    const out = mapped(matrix, point), [x, y, z] = point;
    let a = 0, b = 0, d = 0;
    for (let i = 0; i < p.length; i += 3) {
      const u = x - p[i], v = y - p[i + 1], w = z - p[i + 2];
      const r = Math.sqrt(u * u + v * v + w * w);
      a += r * c[i];
      b += r * c[i + 1];
      d += r * c[i + 2];
    }
    return [out[0] - a, out[1] - b, out[2] - d];
  };
}
