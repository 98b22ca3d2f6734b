// Where the slices of the fixed image lie on the canvas, and which place of it is under a pixel.

import { mapped } from "./matrices.js";

const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const GAP = 6, SMALLEST = 1 / 32;

// The part of a picture that is seen, in shares of it.
export const WHOLE = { x: 0, y: 0, span: 1 };

const within = ({ x, y, span }) => ({ span, x: Math.min(Math.max(x, 0), 1 - span),
  y: Math.min(Math.max(y, 0), 1 - span) });

// A part seen larger by a factor; the place under a pixel of the panel stays there.
export function zoomed({ x, y, span }, factor, panel, pixelX, pixelY) {
  const next = Math.min(1, Math.max(SMALLEST, span / factor)), less = span - next;
  return within({ span: next, x: x + less * (pixelX - panel.left) / panel.w,
    y: y + less * (pixelY - panel.top) / panel.height });
}

// A part after the picture was pulled by pixels.
export const pulled = ({ x, y, span }, panel, pixelsX, pixelsY) =>
  within({ span, x: x - span * pixelsX / panel.w, y: y - span * pixelsY / panel.height });

// The slices through the place at (index): one of a picture; of a volume the axial, coronal and
// sagittal one as radiologists see them: left of the patient to the right, posterior down.
export function panelsOf(grid, width, height, part = WHOLE) {
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
    const panel = { h, v, across, flipH, flipV, scale, spacing, part, w, height: panelHeight, left,
      top: (height - panelHeight) / 2 };
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
