// What edited keypoints lead to: the same ways as retreg/hand_edit.py, on the page.

import { affineMatrix, pairsOf, rigidMatrix, similarityMatrix } from "./closed_form.js";
import { correctionMap, unfoldedCorrection } from "./local_correction.js";
import { mapped, minus, norm } from "./matrices.js";
import { splineMap, splineOf } from "./thin_plate.js";

const SAME_PLACE = 1e-3;
const MATRICES = { rigid: rigidMatrix, similarity: similarityMatrix, affine: affineMatrix };

// The map of a family from fixed to moving points; throws an Error with a sentence.
export function fitted(family, fixed, moving, weights, smoothing) {
  const pairs = pairsOf(fixed, moving, weights);
  if (family === "tps") return splineMap(splineOf(pairs, smoothing));
  const matrix = MATRICES[family](pairs);
  return (point) => mapped(matrix, point);
}

const away = (a, b) => Math.max(...minus(a, b).map(Math.abs)) > SAME_PLACE;

// points: {fixed, moving, used, weight, fixedBefore, movingBefore}; field: the map as measured.
export function refitted(points, { way, smoothing, reach }, field) {
  if (way !== "correction") {
    const weights = points.map((p) => (p.used ? p.weight : 0));
    return fitted(way, points.map((p) => p.fixed), points.map((p) => p.moving), weights, smoothing);
  }
  const changed = points.filter((p) => p.used
    && (away(p.fixed, p.fixedBefore) || away(p.moving, p.movingBefore)));
  if (!changed.length) return field.map;
  const shifts = changed.map((p) => minus(field.back(p.moving, p.fixed), p.fixed));
  const correction = unfoldedCorrection(changed.map((p) => p.fixed), shifts, reach);
  const correct = correctionMap(correction);
  return (point) => field.map(correct(point));
}

export const residual = (map, point) => norm(minus(map(point.fixed), point.moving));
