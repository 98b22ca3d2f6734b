// The page: what people set, and the result that follows it.

import { back, coarser, fieldOf, sampled } from "./field.js";
import { arrowsOf, drawMarks } from "./marks.js";
import { mapped, norm, plus } from "./matrices.js";
import { WHOLE, following, indexAt, panelAt, pixelOf, pulled, zoomed } from "./panels.js";
import { refitted, residual } from "./refit.js";
import { TokenNeeded, comesFromArchive, goTo, image, namesSeries, register, store, storeInArchive, told,
  useToken } from "./server.js";
import { View } from "./view.js";

const at = (id) => document.getElementById(id);
const GRAB_PX = 14, CLICK_PX = 4, MOST_LIVE = 600;
const DRAFT_NODES = 2000, DRAFT_MS = 20, REST_MS = 120; // of pictures while something moves
const AMOUNTS = ["Share of the moving image", "Share of the moving image", "Number of fields",
  "Strength", "Share of the moving image"];
const EDITED = "Edited by hand; look at it before you use it.";

const fingers = new Map(); // where they lie, by the id of the pointer
let view, now, panels = [], drag = null, pull = null, resting = 0;

const settings = () => ({
  way: at("way").value,
  smoothing: at("smoothing").value === at("smoothing").max ? Infinity : 10 ** at("smoothing").value,
  reach: now.usualReach * 4 ** (2 * at("reach").value - 1),
});
const isEdited = () => at("way").value !== "correction" || now.points.some((p) => p.used
  !== p.usedBefore || p.fixed !== p.fixedBefore || p.moving !== p.movingBefore);
const number = (x) => (typeof x === "number" ? String(+x.toPrecision(3)) : x);

async function open() {
  const [result, fixed, moving] = await Promise.all([told(), image("fixed"), image("moving")]);
  const field = fieldOf(result.field), keys = [result.fixed_keypoints, result.moving_keypoints];
  const points = keys[0].points.map((p, n) => ({ fixed: p, fixedBefore: p, moving: keys[1].points[n],
    movingBefore: keys[1].points[n], weight: keys[0].weights[n], used: keys[0].inliers[n],
    usedBefore: keys[0].inliers[n] }));
  now = { result, grid: fixed, field, points, chosen: points.length ? 0 : -1, map: field.map,
    index: fixed.size.map((n) => Math.floor(n / 2)), usualReach: result.reach_mm,
    part: WHOLE, draft: coarser(field, DRAFT_NODES), sharpness: 1 };
  at("login").hidden = true;
  document.querySelector("main").hidden = false;
  view ??= new View(at("images"));
  view.setImages(fixed, moving);
  document.querySelectorAll(".volume").forEach((part) => { part.hidden = isPicture(); });
  document.querySelectorAll(".picture").forEach((part) => { part.hidden = !isPicture(); });
  fixed.size.forEach((n, c) => Object.assign(at(`slice${c}`), { max: n - 1, value: now.index[c] }));
  Object.assign(at("reach"), { value: 0.5 });
  at("way").value = "correction";
  at("archive-row").hidden = !comesFromArchive();
  describe(result);
  refit();
  rest();
  now.sharpness = view.sharpnessWithin(DRAFT_MS, now.index, looks());
}

function describe({ quality, notes = [], model }) {
  document.title = `Registration: ${quality.verdict}`;
  verdict(quality.verdict, quality.reason);
  const rows = Object.entries({ model, ...quality.numbers }).map(([name, value]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    const unit = name.endsWith("_mm") && now.result.unit === "px" ? "_px" : "_mm";
    head.textContent = name.replace(/_mm$/, unit).replaceAll("_", " ");
    row.append(head, Object.assign(document.createElement("td"), { textContent: number(value) }));
    return row;
  });
  at("numbers").tBodies[0].replaceChildren(...rows);
  at("notes").replaceChildren(...notes.map((textContent) =>
    Object.assign(document.createElement("li"), { textContent })));
}

function verdict(word, reason) {
  Object.assign(at("word"), { textContent: word }).dataset.verdict = word;
  at("reason").textContent = reason;
}

// Everything follows the points: the transform, the picture, the residuals. While something moves,
// the picture is a draft; it is drawn in full as soon as nothing does.
function refit() {
  const set = settings(), { points, field, result } = now;
  at("reach-row").hidden = set.way !== "correction";
  at("smoothing-row").hidden = set.way !== "tps";
  at("reach-value").textContent = `${number(set.reach)} ${result.unit}`;
  at("smoothing-value").textContent = set.smoothing === Infinity ? "affine" : number(set.smoothing);
  at("fit").classList.remove("problem");
  try {
    const used = points.filter((p) => p.used);
    if (set.way === "tps" && used.length > MOST_LIVE) {
      throw new Error(`A spline is fitted here to ${MOST_LIVE} points at most; the server fits all.`);
    }
    now.map = refitted(points, set, field);
    const left = used.map((p) => residual(now.map, p));
    const mean = Math.sqrt(left.reduce((sum, x) => sum + x * x, 0) / Math.max(left.length, 1));
    at("fit").textContent = `${used.length} of ${points.length} pairs in use; their residual is `
      + `${number(mean)} ${result.unit} (root mean square).`;
  } catch (error) {
    at("fit").classList.add("problem");
    at("fit").textContent = error.message;
  }
  for (const point of points) point.seen = back(now.map, point.moving, point.fixed);
  const edited = isEdited();
  at("store").disabled = !edited;
  at("archive").disabled = edited;
  if (edited) verdict("check", EDITED);
  else verdict(result.quality.verdict, result.quality.reason);
  show(now.draft, now.sharpness);
  clearTimeout(resting);
  resting = setTimeout(rest, REST_MS);
}

function rest() {
  clearTimeout(resting);
  show(now.field, 1);
  list();
}

function show(lattice, sharpness) {
  [now.lattice, now.texels] = [lattice, sampled(lattice, now.map)];
  view.setDisplacements(lattice.grid, now.texels);
  draw(sharpness);
}

function list() {
  const options = at("list").options, { points, map, result } = now;
  while (options.length < points.length) at("list").add(new Option());
  at("list").length = points.length;
  points.forEach((point, n) => {
    const moved = point.fixed !== point.fixedBefore || point.moving !== point.movingBefore;
    options[n].text = `${n + 1}: ${number(residual(map, point))} ${result.unit}`
      + `${point.used ? "" : ", off"}${moved ? ", moved" : ""}`;
  });
  at("list").selectedIndex = now.chosen;
}

const looks = () => ({ mode: Number(at("mode").value), amount: Number(at("amount").value),
  lines: at("grid").checked, part: now.part });

function draw(sharpness = 1) {
  panels = view.draw(now.index, looks(), sharpness);
  const arrows = at("arrows").checked ? arrowsOf(now.lattice, now.texels) : [];
  drawMarks(at("marks"), panels, now.grid, now.index, { points: now.points, chosen: now.chosen, arrows,
    showsPoints: at("points").checked });
}

function choose(n, goes) {
  now.chosen = n;
  if (goes && n >= 0) visit(mapped(now.grid.indexFromWorld, now.points[n].fixed));
  at("list").selectedIndex = n;
  draw();
}

function visit(index) {
  now.index = index.map((x, c) => Math.min(Math.max(Math.round(x), 0), now.grid.size[c] - 1));
  now.index.forEach((x, c) => { at(`slice${c}`).value = x; });
  see(following(now.part, now.grid, now.index));
}

// Puts a point to where people see it, a place of the fixed image. While one of the moving image is
// dragged, the picture stays still: it would else run away from the mouse.
function put(point, place, isFinal) {
  if (at("side").value === "fixed") point.fixed = place;
  else [point.moving, point.seen] = [now.map(place), place];
  point.used = true;
  if (isFinal || at("side").value === "fixed") refit();
  else draw();
}

const pixel = (event) => {
  const box = at("marks").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

const isPicture = () => now.grid.size[2] === 1;

function see(part) {
  now.part = part;
  draw();
}

const between = ([a, b]) => ({ length: Math.hypot(a[0] - b[0], a[1] - b[1]),
  x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 });

const zoom = (factor, index = now.index) => see(zoomed(now.part, factor, now.grid, index));

// Two fingers make the image larger and pull it.
function pinch(event) {
  const before = between([...fingers.values()]);
  fingers.set(event.pointerId, pixel(event));
  const after = between([...fingers.values()]);
  const panel = panelAt(panels, before.x, before.y) ?? panels[0];
  zoom(after.length / before.length, indexAt(panel, now.grid, now.index, before.x, before.y));
  see(pulled(now.part, panel, after.x - before.x, after.y - before.y));
}

function begin(event) {
  fingers.set(event.pointerId, pixel(event));
  if (fingers.size > 1) drag = pull = null;
  const [x, y] = pixel(event), panel = panelAt(panels, x, y);
  if (!panel || fingers.size > 1) return;
  const shown = at("side").value === "fixed" ? "fixed" : "seen";
  let best = -1, nearest = GRAB_PX;
  now.points.forEach((point, n) => {
    const p = pixelOf(panel, now.grid, point[shown]), away = Math.hypot(p.x - x, p.y - y);
    const slices = Math.abs(p.slices - now.index[panel.across]);
    if (at("points").checked && slices <= 1.5 && away < nearest) [best, nearest] = [n, away];
  });
  if (best < 0) {
    pull = { panel, x, y, isClick: !isPicture() };
    return;
  }
  choose(best, false);
  drag = { panel, point: now.points[best], from: mapped(now.grid.indexFromWorld, now.points[best][shown]) };
  at("marks").setPointerCapture(event.pointerId);
}

function move(event, isFinal) {
  if (fingers.size === 2 && fingers.has(event.pointerId)) pinch(event);
  if (isFinal) fingers.delete(event.pointerId);
  if (pull) {
    const [x, y] = pixel(event), { panel } = pull, right = x - pull.x, down = y - pull.y;
    if (pull.isClick && Math.hypot(right, down) < CLICK_PX) {
      if (isFinal) visit(indexAt(panel, now.grid, now.index, x, y));
    } else {
      see(pulled(now.part, panel, right, down));
      pull = { panel, x, y };
    }
    if (isFinal) pull = null;
  }
  if (!drag) return;
  const { panel, point, from } = drag, [x, y] = pixel(event);
  const index = indexAt(panel, now.grid, from, x, y);
  drag.moved ||= norm(index.map((value, c) => value - from[c])) > 0.5;
  if (isFinal) drag = null;
  const place = mapped(now.grid.worldFromIndex, index);
  if (drag?.moved || (isFinal && point.seen && norm(index.map((v, c) => v - from[c])) > 0.5)) {
    put(point, place, isFinal);
  }
}

const STEPS = { ArrowLeft: ["h", -1], ArrowRight: ["h", 1], ArrowUp: ["v", -1], ArrowDown: ["v", 1],
  PageUp: ["across", 1], PageDown: ["across", -1] };
const FACTORS = { "+": 1.25, "=": 1.25, "-": 0.8, 0: 0 };

function press(event) {
  const point = now.points[now.chosen], step = STEPS[event.key];
  if (event.key === " " && point) toggle();
  else if (event.key in FACTORS && !event.ctrlKey && !event.metaKey) zoom(FACTORS[event.key]);
  else if (step && point) {
    const [axis, sign] = step, panel = panels[0];
    const flipped = (axis === "h" && panel.flipH) || (axis === "v" && panel.flipV);
    const length = sign * (flipped ? -1 : 1) * (event.shiftKey ? 10 : 1);
    if (axis === "across" && isPicture()) return;
    const shift = [0, 1, 2].map((r) => now.grid.worldFromIndex[r][panel[axis]] * length);
    put(point, plus(at("side").value === "fixed" ? point.fixed : point.seen, shift), true);
  } else return;
  event.preventDefault();
}

function toggle() {
  const point = now.points[now.chosen];
  if (!point) return;
  point.used = !point.used;
  refit();
}

function reset() {
  for (const point of now.points) {
    [point.fixed, point.moving, point.used] = [point.fixedBefore, point.movingBefore, point.usedBefore];
  }
  at("way").value = "correction";
  refit();
}

async function keep() {
  at("store").disabled = true;
  try {
    const { id, verdict: word, note = "" } = await store(now.points, settings());
    goTo(id);
    await open();
    at("stored").textContent = `Stored as ${id} (${word}). This is it. ${note}`;
  } catch (error) {
    at("stored").textContent = error.message;
    at("store").disabled = false;
  }
}

async function keepInArchive() {
  at("archive").disabled = true;
  const tell = (stage) => { at("stored").textContent = stage; };
  try {
    at("stored").textContent = `Stored in the archive: ${await storeInArchive(tell)} objects.`;
  } catch (error) {
    at("stored").textContent = error.message;
    at("archive").disabled = isEdited();
  }
}

function wait(stage, fraction, cancel) {
  at("login").hidden = true;
  at("waiting").hidden = false;
  at("progress").value = fraction;
  at("cancel").onclick = cancel;
  verdict("", stage);
}

async function enter() {
  try {
    if (namesSeries()) await register(wait);
    await open();
  } catch (error) {
    if (error instanceof TokenNeeded) at("login").hidden = false;
    verdict("", error.message);
    if (error instanceof TokenNeeded) at("token").focus();
  }
  at("waiting").hidden = true;
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(at("token").value);
  at("token").value = "";
  enter();
});
for (const id of ["amount", "grid", "arrows", "points"]) at(id).addEventListener("input", () => draw());
at("mode").addEventListener("input", () => {
  at("amount-name").textContent = AMOUNTS[at("mode").value];
  draw();
});
for (const id of ["way", "smoothing", "reach"]) at(id).addEventListener("input", refit);
[0, 1, 2].forEach((c) => at(`slice${c}`).addEventListener("input", () => {
  visit(now.index.map((x, k) => (k === c ? Number(at(`slice${c}`).value) : x)));
}));
at("list").addEventListener("input", () => choose(at("list").selectedIndex, true));
at("list").addEventListener("keydown", (event) => {
  if (event.key !== " ") return;
  event.preventDefault();
  toggle();
});
at("toggle").addEventListener("click", toggle);
at("reset").addEventListener("click", reset);
at("store").addEventListener("click", keep);
at("archive").addEventListener("click", keepInArchive);
at("marks").addEventListener("pointerdown", begin);
at("marks").addEventListener("pointermove", (event) => move(event, false));
at("marks").addEventListener("pointerup", (event) => move(event, true));
at("marks").addEventListener("pointercancel", (event) => {
  fingers.delete(event.pointerId);
  drag = pull = null;
});
at("marks").addEventListener("dblclick", () => see(WHOLE));
at("marks").addEventListener("keydown", press);
at("marks").addEventListener("wheel", (event) => {
  const panel = panelAt(panels, ...pixel(event));
  if (!panel) return;
  event.preventDefault();
  if (isPicture() || event.ctrlKey) {
    zoom(1.002 ** -event.deltaY, indexAt(panel, now.grid, now.index, ...pixel(event)));
  } else visit(now.index.map((x, c) => (c === panel.across ? x + Math.sign(event.deltaY) : x)));
}, { passive: false });
new ResizeObserver(() => { if (now && view) draw(); }).observe(at("images"));
addEventListener("popstate", enter);
enter();
