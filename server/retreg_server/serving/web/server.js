// What the page asks the server. The token stays in memory and is sent in a header only.

import { gridOf } from "./field.js";

const id = () => location.pathname.split("/").pop();
let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

// The series of an archive that the address names; they stay in it only until there is a result.
const named = new URLSearchParams(location.search);
history.replaceState(null, "", location.pathname + (id() ? "" : location.search));

export class TokenNeeded extends Error {}

export const useToken = (text) => { token = text; };

export const goTo = (job) => history.pushState(null, "", job);

const posted = (message) => ({ method: "POST", body: JSON.stringify(message),
  headers: { "Content-Type": "application/json" } });

const asked = (path, options) => sent(`registrations/${id()}/${path}`, options);

async function sent(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(`../v1/${path}`, { ...options, headers });
  if (answer.ok) return answer;
  const { message } = await answer.json().catch(() => ({ message: `Error ${answer.status}.` }));
  throw answer.status === 401 ? new TokenNeeded(message) : new Error(message);
}

export const told = async () => (await asked("look")).json();

// An image in 8 bits: its grid, channels (1 or 3) and voxels, those of one place together.
export async function image(role) {
  const answer = await asked(`look/${role}`), header = JSON.parse(answer.headers.get("RetReg-Image"));
  const planes = new Uint8Array(await answer.arrayBuffer()), { channels } = header;
  const count = planes.length / channels, voxels = channels === 1 ? planes : new Uint8Array(planes.length);
  if (channels === 3) {
    for (let n = 0; n < count; n++) {
      for (let c = 0; c < 3; c++) voxels[3 * n + c] = planes[c * count + n];
    }
  }
  return { ...gridOf(header), channels, voxels };
}

export async function store(points, { way, smoothing, reach }) {
  const message = {
    fixed: points.map((p) => p.fixed),
    moving: points.map((p) => p.moving),
    used: points.map((p) => p.used),
    transform: way,
    smoothing: smoothing === Infinity ? "Infinity" : smoothing,
    reach_mm: reach,
  };
  return (await asked("refit", posted(message))).json();
}

const ORDERS = "dicomweb/registrations", LOOK_MS = 500;

const side = (role) => ({ study: named.get(`${role}Study`) ?? named.get("study"), series: named.get(role) });

export const comesFromArchive = () => named.has("fixed");

// Whether the address names series in place of a result.
export const namesSeries = () => id() === "";

// Registers the series; tell(stage, fraction, cancel) hears how it goes. The address is then that of
// the result. A link stores nothing in the archive.
export async function register(tell) {
  const order = await ordered({ model: named.get("model"), store: [] }, tell);
  history.replaceState(null, "", order.registration);
}

// Stores the aligned series and the registration of the result that is shown; how many objects.
export async function storeInArchive(tell) {
  const { stored, note } = await ordered({ registration: id(), store: ["series", "registration"] }, tell);
  if (note) throw new Error(note);
  return Object.values(stored).flat().length;
}

async function ordered(wanted, tell) {
  const message = { archive: named.get("archive"), fixed: side("fixed"), moving: side("moving"), ...wanted };
  let order = await (await sent(ORDERS, posted(message))).json();
  const cancel = () => sent(`${ORDERS}/${order.id}`, { method: "DELETE" });
  while (["queued", "running"].includes(order.state)) {
    tell(order.stage, order.fraction, cancel);
    await new Promise((done) => { setTimeout(done, LOOK_MS); });
    order = await (await sent(`${ORDERS}/${order.id}`)).json();
  }
  if (order.error) throw new Error(order.error.message);
  return order;
}
