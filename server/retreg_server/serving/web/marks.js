// Keypoints, and arrows of the deformation, on a canvas above the images.

import { affineMatrix, pairsOf } from "./closed_form.js";
import { mapped, minus, plus } from "./matrices.js";
import { pixelOf } from "./panels.js";

const NEAR_SLICES = 1.5, RADIUS = 6, ARROWS = 24;

export function drawMarks(canvas, panels, grid, at, { points, chosen, arrows, showsPoints }) {
  const ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  pen.scale(ratio, ratio);
  for (const panel of panels) {
    pen.save();
    pen.beginPath();
    pen.rect(panel.left, panel.top, panel.w, panel.height);
    pen.clip();
    const near = (pixel) => Math.abs(pixel.slices - at[panel.across]) <= NEAR_SLICES;
    for (const [from, to] of arrows) {
      const a = pixelOf(panel, grid, from), b = pixelOf(panel, grid, to);
      if (Math.abs(a.slices - at[panel.across]) * panel.spacing[panel.across] < arrows.step / 2) {
        drawArrow(pen, a, b);
      }
    }
    if (showsPoints) {
      points.forEach((point, n) => {
        const circle = pixelOf(panel, grid, point.fixed), crossing = pixelOf(panel, grid, point.seen);
        if (near(circle) || near(crossing)) drawPair(pen, circle, crossing, point.used, n === chosen);
      });
    }
    pen.restore();
  }
}

function drawPair(pen, a, b, used, chosen) {
  for (const [width, colour] of [[chosen ? 6 : 4, "#000"], [chosen ? 3 : 1.6, !used ? "#b0b0b0"
    : chosen ? "#ffffff" : "#ffd23f"]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.beginPath();
    pen.arc(a.x, a.y, RADIUS, 0, 2 * Math.PI);
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
    for (const sign of [-1, 1]) {
      pen.moveTo(b.x - RADIUS, b.y - sign * RADIUS);
      pen.lineTo(b.x + RADIUS, b.y + sign * RADIUS);
    }
    pen.stroke();
  }
}

function drawArrow(pen, a, b) {
  const angle = Math.atan2(b.y - a.y, b.x - a.x), length = Math.hypot(b.x - a.x, b.y - a.y);
  if (length < 1) return;
  pen.lineWidth = 1.5;
  pen.strokeStyle = "#5ad1ff";
  pen.beginPath();
  pen.moveTo(a.x, a.y);
  pen.lineTo(b.x, b.y);
  for (const side of [-0.5, 0.5]) {
    pen.moveTo(b.x, b.y);
    pen.lineTo(b.x - Math.min(length, 6) * Math.cos(angle + side),
      b.y - Math.min(length, 6) * Math.sin(angle + side));
  }
  pen.stroke();
}

// From places of the lattice to where they go beyond the affine map that fits them all best.
export function arrowsOf({ nodes, grid: { size, worldFromIndex } }, texels) {
  const step = Math.max(1, Math.ceil(Math.max(...size) / ARROWS)), places = [], shifts = [];
  nodes.forEach((node, n) => {
    const i = n % size[0], j = Math.floor(n / size[0]) % size[1], k = Math.floor(n / size[0] / size[1]);
    if (i % step || j % step || k % step) return;
    places.push(node);
    shifts.push(Array.from(texels.subarray(4 * n, 4 * n + 3)));
  });
  const there = places.map((p, n) => plus(p, shifts[n]));
  const affine = affineMatrix(pairsOf(places, there, places.map(() => 1)));
  const arrows = places.map((p, n) => [p, plus(p, minus(there[n], mapped(affine, p)))]);
  arrows.step = step * Math.hypot(...worldFromIndex.slice(0, 3).map((row) => row[0]));
  return arrows;
}
