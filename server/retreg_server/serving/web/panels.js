// Where the slices of the fixed image lie on the canvas, and which place of it is under a pixel.

import { mapped } from "./matrices.js";

const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const GAP = 6, SMALLEST = 1 / 32;

// The part of the image that is seen, along each axis from a share of its length on.
export const WHOLE = { from: [0, 0, 0], span: 1 };

const within = (span, from) => ({ span, from: from.map((x) => Math.min(Math.max(x, 0), 1 - span)) });
const shareOf = (grid, index, c) => (index[c] + 0.5) / grid.size[c];

// A part seen larger by a factor; the place at an index stays where it is seen, in every slice.
export function zoomed({ from, span }, factor, grid, index) {
  const next = Math.min(1, Math.max(SMALLEST, span / factor));
  return within(next, from.map((x, c) => x + (1 - next / span) * (shareOf(grid, index, c) - x)));
}

// A part after the slice in a panel was pulled by pixels.
export function pulled({ from, span }, panel, pixelsX, pixelsY) {
  const next = [...from];
  next[panel.h] -= (panel.flipH ? -span : span) * pixelsX / panel.w;
  next[panel.v] -= (panel.flipV ? -span : span) * pixelsY / panel.height;
  return within(span, next);
}

// The part, moved to the place at an index along the axes on which that was not seen.
export const following = ({ from, span }, grid, index) => within(span, from.map((x, c) => {
  const away = shareOf(grid, index, c) - x;
  return away < 0 || away > span ? x + away - span / 2 : x;
}));

// The slices through the place at (index): one of a picture; of a volume the axial, coronal and
// sagittal one as radiologists see them: left of the patient to the right, posterior down.
export function panelsOf(grid, width, height, { from, span } = WHOLE) {
  const columns = [0, 1, 2].map((c) => [0, 1, 2].map((r) => grid.worldFromIndex[r][c]));
  const spacing = columns.map((column) => Math.hypot(...column));
  const isPicture = grid.size[2] === 1;
  const [l, p, s] = isPicture ? ORDERS[0] : ORDERS.reduce((best, order) => {
    const along = (o) => o.reduce((sum, c, r) => sum + Math.abs(columns[c][r]) / spacing[c], 0);
    return along(order) > along(best) ? order : best;
  });
  const flip = (axis, row, up) => !isPicture && (columns[axis][row] < 0) !== up;
  const planes = [[l, p, s, flip(l, 0, false), flip(p, 1, false)]];
  if (!isPicture) {
    planes.push([l, s, p, flip(l, 0, false), flip(s, 2, true)]);
    planes.push([p, s, l, flip(p, 1, false), flip(s, 2, true)]);
  }
  const extent = (axis) => grid.size[axis] * spacing[axis];
  const wide = planes.reduce((sum, [h]) => sum + extent(h), 0);
  const high = Math.max(...planes.map(([, v]) => extent(v)));
  const free = width - GAP * (planes.length - 1);
  const scale = Math.min(free / wide, height / high);
  let left = (free - wide * scale) / 2;
  return planes.map(([h, v, across, flipH, flipV]) => {
    const w = extent(h) * scale, panelHeight = extent(v) * scale;
    const begin = (axis, flipped) => (flipped ? 1 - span - from[axis] : from[axis]);
    const panel = { h, v, across, flipH, flipV, scale, spacing, w, height: panelHeight, left,
      top: (height - panelHeight) / 2, part: { x: begin(h, flipH), y: begin(v, flipV), span } };
    left += w + GAP;
    return panel;
  });
}

const along = (share, size, flipped) => (flipped ? 1 - share : share) * size - 0.5;

// Fractional index under a pixel of a panel; at: the index of the place that the slices meet in.
export function indexAt(panel, grid, at, x, y) {
  const index = [...at];
  index[panel.h] = along(panel.part.x + panel.part.span * (x - panel.left) / panel.w, grid.size[panel.h], panel.flipH);
  index[panel.v] = along(panel.part.y + panel.part.span * (y - panel.top) / panel.height, grid.size[panel.v], panel.flipV);
  return index;
}

export function pixelOf(panel, grid, point) {
  const index = mapped(grid.indexFromWorld, point), { part } = panel;
  const share = (axis, flipped) => {
    const place = (index[axis] + 0.5) / grid.size[axis];
    return flipped ? 1 - place : place;
  };
  return {
    x: panel.left + (share(panel.h, panel.flipH) - part.x) / part.span * panel.w,
    y: panel.top + (share(panel.v, panel.flipV) - part.y) / part.span * panel.height,
    slices: index[panel.across],
  };
}

export const panelAt = (panels, x, y) => panels.find((p) =>
  x >= p.left && x <= p.left + p.w && y >= p.top && y <= p.top + p.height);
