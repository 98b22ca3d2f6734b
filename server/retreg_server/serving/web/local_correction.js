// Points that go by their shifts while nothing moves beyond a reach: retreg/local_correction.py.

import { determinant, minus, norm, solve } from "./matrices.js";

const LEAST_DETERMINANT = 0.1, STEEPEST = 2.109375, WIDER = 1.25, WIDENINGS = 12, SAME = 1e-6;
const RINGS = [0.05, 0.15, 0.25, 0.4, 0.6];
const STEPS = [-1, 0, 1];
const DIRECTIONS = STEPS.flatMap((x) => STEPS.flatMap((y) => STEPS.map((z) => [x, y, z])))
  .filter((d) => norm(d) > 0);

const wendland = (r) => (r >= 1 ? 0 : (1 - r) ** 4 * (4 * r + 1));

export function correctionOf(points, shifts, reach) {
  const ratios = points.map((p) => points.map((q) => norm(minus(p, q)) / reach));
  if (ratios.some((row, i) => row.some((r, k) => i !== k && r < SAME))) {
    throw new Error("Two of the points that were moved lie at the same place; switch one off.");
  }
  const coefficients = solve(ratios.map((row) => row.map(wendland)), shifts);
  return { points, coefficients, reach };
}

export function correctionMap({ points, coefficients, reach }) {
  return (point) => {
    const out = [...point];
    points.forEach((p, i) => {
      const weight = wendland(norm(minus(point, p)) / reach);
      if (weight > 0) for (const c of [0, 1, 2]) out[c] += weight * coefficients[i][c];
    });
    return out;
  };
}

function determinantAt({ points, coefficients, reach }, place) {
  const bends = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  points.forEach((p, n) => {
    const away = minus(place, p);
    const slope = -20 * (1 - Math.min(norm(away) / reach, 1)) ** 3 / reach ** 2;
    if (slope) {
      for (const i of [0, 1, 2]) {
        for (const j of [0, 1, 2]) bends[i][j] += slope * coefficients[n][i] * away[j];
      }
    }
  });
  return determinant(bends);
}

export function smallestDeterminant(correction) {
  const { points, coefficients, reach } = correction;
  let smallest = Infinity;
  const look = (place) => { smallest = Math.min(smallest, determinantAt(correction, place)); };
  points.forEach((p, n) => {
    const own = coefficients[n];
    for (const ray of [...DIRECTIONS, own, own.map((x) => -x)]) {
      const length = Math.max(norm(ray), 1e-300);
      for (const ring of RINGS) look(p.map((x, c) => x + reach * ring * ray[c] / length));
    }
    for (const q of points) look(p.map((x, c) => (x + q[c]) / 2));
  });
  return smallest;
}

// With the wanted reach, or the next larger one with which nothing folds.
export function unfoldedCorrection(points, shifts, wanted) {
  const furthest = Math.max(...shifts.map(norm));
  let reach = Math.max(wanted, STEEPEST * furthest / (1 - LEAST_DETERMINANT) * (1 + 1e-9));
  for (let n = 0; n < WIDENINGS; n++) {
    const correction = correctionOf(points, shifts, reach);
    if (smallestDeterminant(correction) >= LEAST_DETERMINANT) return correction;
    reach *= WIDER;
  }
  throw new Error("Neighbouring points go such different ways that the image would fold; move one "
    + "back, or switch it off.");
}
