// What the page asks the server. The token stays in memory and is sent in a header only.

import { gridOf } from "./field.js";

const id = () => location.pathname.split("/").pop();
let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
if (token) history.replaceState(null, "", location.pathname);

export class TokenNeeded extends Error {}

export const useToken = (text) => { token = text; };

export const goTo = (job) => history.pushState(null, "", job);

async function asked(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(`../v1/registrations/${id()}/${path}`, { ...options, headers });
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
  const body = JSON.stringify({
    fixed: points.map((p) => p.fixed),
    moving: points.map((p) => p.moving),
    used: points.map((p) => p.used),
    transform: way,
    smoothing: smoothing === Infinity ? "Infinity" : smoothing,
    reach_mm: reach,
  });
  const headers = { "Content-Type": "application/json" };
  return (await asked("refit", { method: "POST", body, headers })).json();
}
