// An extension of OHIF 3.13: a panel that registers two series of the open study. It is loaded as it
// is, from https://SERVER/viewers/ohif.js?archive=NAME, and works with the server that it comes from.

const HERE = new URL(import.meta.url), SERVER = new URL("..", HERE);
const ORDERS = "v1/dicomweb/registrations", LOOK_MS = 500;
const NO_IMAGES = ["REG", "FID", "SR", "SEG", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "DOC"];
const COLOURS = { accept: "#6fd08c", check: "#f0b45a", fail: "#ff8a86" };
const STYLES = `.retreg { padding: 8px; color: #ddd; font-size: 13px; display: grid; gap: 8px; }
  .retreg :is(select, input, progress) { width: 100%; color: #fff; background: #0b1a42; padding: 3px; }
  .retreg :is(button, a.retreg-look) { background: #2a4a9a; color: #fff; padding: 4px 10px;
    border-radius: 4px; margin-right: 6px; display: inline-block; }
  .retreg button:disabled { opacity: 0.4; } .retreg [hidden] { display: none; }`;

let token = "";

class TokenNeeded extends Error {}

async function asked(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(new URL(path, SERVER), { ...options, headers }).catch(() => {
    throw new Error("The server for registrations does not answer; is it running, and does it "
      + "allow this site (cors_origins)?");
  });
  if (answer.status === 204) return null;
  const message = await answer.json().catch(() => ({ message: `Error ${answer.status}.` }));
  if (answer.ok) return message;
  throw answer.status === 401 ? new TokenNeeded(message.message) : new Error(message.message);
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const labelled = (text, control) => element("label", {}, text, control);

// What the panel needs of OHIF: its series, its viewports, and objects that are new in the archive.
function viewerOf({ servicesManager, commandsManager, extensionManager }) {
  const { displaySetService, viewportGridService, cornerstoneViewportService } = servicesManager.services;
  const run = (name, options) => commandsManager.runCommand(name, options);

  const series = () => displaySetService.getActiveDisplaySets().filter((shown) =>
    !NO_IMAGES.includes(shown.Modality) && shown.SeriesInstanceUID);

  const shownIn = () => {
    const { viewports, activeViewportId } = viewportGridService.getState();
    return { viewports, active: activeViewportId };
  };

  const chosen = () => {
    const { viewports, active } = shownIn();
    return viewports.get(active)?.displaySetInstanceUIDs?.[0];
  };

  // OHIF keeps what it once knew of a study, under a key that its own deletion misses.
  async function fetchSeries(study, uids) {
    const [source] = extensionManager.getActiveDataSource();
    const name = source.getConfig?.()?.name;
    for (const uid of uids) {
      for (const key of [study, `${name}:${study}`]) source.deleteStudyMetadataPromise(key);
      await source.retrieve.series.metadata({ StudyInstanceUID: study,
        filters: { seriesInstanceUID: [uid] } });
    }
  }

  function show(viewportId, shown) {
    run("setDisplaySetsForViewports", { viewportsToUpdate: [
      { viewportId, displaySetInstanceUIDs: [shown.displaySetInstanceUID] }] });
  }

  // OHIF gives a new layer its own colours with setTimeout, so ours come after that.
  const layered = (viewportId) => new Promise((done) => {
    const { VIEWPORT_VOLUMES_CHANGED } = cornerstoneViewportService.EVENTS;
    const heard = cornerstoneViewportService.subscribe(VIEWPORT_VOLUMES_CHANGED, ({ viewportInfo }) => {
      if (viewportInfo.viewportId !== viewportId) return;
      heard.unsubscribe();
      setTimeout(done, 0);
    });
  });

  async function overlay(fixed, derived) {
    const { viewports, active } = shownIn(), displaySetInstanceUID = derived.displaySetInstanceUID;
    const uids = (viewport) => viewport?.displaySetInstanceUIDs ?? [];
    const isFixed = (viewport) => uids(viewport)[0] === fixed.displaySetInstanceUID;
    const viewportId = [...viewports].find(([, viewport]) => isFixed(viewport))?.[0] ?? active;
    if (uids(viewports.get(viewportId)).includes(displaySetInstanceUID)) return;
    if (!isFixed(viewports.get(viewportId))) show(viewportId, fixed);
    const isLayered = layered(viewportId);
    run("addDisplaySetAsLayer", { viewportId, displaySetInstanceUID });
    await isLayered;
    run("setViewportColormap", { viewportId, displaySetInstanceUID, opacity: 0.5,
      colormap: { name: "Grayscale" }, immediate: true });
  }

  const onChange = (act) => ["DISPLAY_SETS_ADDED", "DISPLAY_SETS_REMOVED"].forEach((name) =>
    displaySetService.subscribe(displaySetService.EVENTS[name], act));

  return { series, chosen, fetchSeries, overlay, onChange,
    showInActive: (shown) => show(shownIn().active, shown) };
}

const nameOf = (shown) => `${shown.SeriesNumber ?? ""} ${shown.Modality} ${shown.SeriesDescription ?? ""}`.trim();
const isPlaced = (shown) => Boolean(shown?.FrameOfReferenceUID ?? shown?.instances?.[0]?.FrameOfReferenceUID);
const addressOf = (shown) => ({ study: shown.StudyInstanceUID, series: shown.SeriesInstanceUID });

// The page of a result, which can store in the archive what people correct there.
function pageOf(registration, fixed, moving) {
  const page = new URL(`look/${registration}`, SERVER), archive = HERE.searchParams.get("archive");
  const series = { study: fixed.StudyInstanceUID, movingStudy: moving.StudyInstanceUID,
    fixed: fixed.SeriesInstanceUID, moving: moving.SeriesInstanceUID, ...(archive ? { archive } : {}) };
  page.search = new URLSearchParams(series);
  page.hash = token ? `token=${token}` : "";
  return page;
}

// The panel lives as long as the page, so that a registration goes on while another panel is open.
function panelOf(viewer) {
  const at = {
    fixed: element("select", { id: "retreg-fixed" }), moving: element("select", { id: "retreg-moving" }),
    model: element("select", { id: "retreg-model" }, new Option("chosen from the images", "")),
    token: element("input", { type: "password", autocomplete: "off" }),
    start: element("button", { type: "button", id: "retreg-start", textContent: "Register" }),
    cancel: element("button", { type: "button", id: "retreg-cancel", textContent: "Cancel", disabled: true }),
    progress: element("progress", { max: 1, value: 0, hidden: true }),
    said: element("p", { id: "retreg-said" }),
    overlay: element("button", { type: "button", id: "retreg-overlay", hidden: true }),
    look: element("a", { className: "retreg-look", target: "_blank", rel: "noopener", hidden: true,
      textContent: "Look at it, and correct it" }),
  };
  at.said.setAttribute("role", "status");
  at.login = element("form", { hidden: true }, labelled("Token of the server", at.token),
    element("button", { textContent: "Use it" }));
  let order = null, made = null, models = [];

  const say = (text, word = "") => {
    at.said.replaceChildren(text);
    if (word) at.said.prepend(element("strong", { textContent: `${word}: ` }));
    at.said.style.color = COLOURS[word] ?? "";
  };

  function fill() {
    const known = viewer.series(), uid = (shown) => shown.displaySetInstanceUID;
    const first = viewer.chosen() ?? known[0]?.displaySetInstanceUID;
    const wanted = { fixed: at.fixed.value || first };
    wanted.moving = at.moving.value || known.map(uid).find((each) => each !== wanted.fixed);
    for (const role of ["fixed", "moving"]) {
      at[role].replaceChildren(...known.map((shown) => new Option(nameOf(shown), uid(shown))));
      at[role].value = wanted[role];
    }
    fitModels();
  }

  const picked = (role) => viewer.series().find((shown) => shown.displaySetInstanceUID === at[role].value);

  // Asks first whether a token is needed: browsers complain of every answer that refuses.
  async function offerModels() {
    if (!token && (await asked("auth/")).enabled) throw new TokenNeeded("The server needs a token.");
    ({ models } = await asked("v1/models"));
    at.login.hidden = true;
    fitModels();
  }

  // Photographs have no frame of reference, volumes have one.
  function fitModels() {
    const kind = isPlaced(picked("fixed")) ? "volume" : "picture";
    at.model.length = 1;
    for (const { name, title, kinds } of models) if (kinds.includes(kind)) at.model.add(new Option(title, name));
  }

  async function guarded(act) {
    try {
      await act();
    } catch (error) {
      say(error.message);
      at.login.hidden = !(error instanceof TokenNeeded);
      if (at.login.hidden) at.said.style.color = COLOURS.fail;
    }
  }

  async function register() {
    const fixed = picked("fixed"), moving = picked("moving");
    if (!fixed || !moving || fixed === moving) throw new Error("Two series of the study are needed; choose them.");
    [at.overlay.hidden, at.look.hidden] = [true, true];
    order = null;
    const body = JSON.stringify({ archive: HERE.searchParams.get("archive"), fixed: addressOf(fixed),
      moving: addressOf(moving), model: at.model.value || null });
    order = await asked(ORDERS, { method: "POST", body, headers: { "Content-Type": "application/json" } });
    while (["queued", "running"].includes(order.state)) {
      at.progress.value = order.fraction;
      say(order.stage);
      await new Promise((done) => { setTimeout(done, LOOK_MS); });
      order = await asked(`${ORDERS}/${order.id}`);
    }
    if (order.state === "cancelled") say("The registration was cancelled.");
    else if (order.error) throw new Error(order.error.message);
    else await finish(fixed, moving);
  }

  async function finish(fixed, moving) {
    say([order.reason, order.note].filter(Boolean).join(" "), order.verdict);
    at.look.href = pageOf(order.registration, fixed, moving);
    at.look.hidden = false;
    const uids = Object.keys(order.stored);
    await viewer.fetchSeries(fixed.StudyInstanceUID, uids);
    const derived = viewer.series().find((shown) => uids.includes(shown.SeriesInstanceUID));
    made = derived && { fixed, derived };
    at.overlay.hidden = !made;
    at.overlay.textContent = isPlaced(fixed) ? "Overlay on fixed" : "Show the registered picture";
  }

  async function start() {
    [at.start.disabled, at.cancel.disabled, at.progress.hidden] = [true, false, false];
    await guarded(register);
    [at.start.disabled, at.cancel.disabled, at.progress.hidden] = [false, true, true];
  }

  at.fixed.addEventListener("change", fitModels);
  at.start.addEventListener("click", start);
  at.cancel.addEventListener("click", () => {
    if (order) guarded(() => asked(`${ORDERS}/${order.id}`, { method: "DELETE" }));
  });
  at.overlay.addEventListener("click", () => guarded(() => (isPlaced(made.fixed)
    ? viewer.overlay(made.fixed, made.derived) : viewer.showInActive(made.derived))));
  at.login.addEventListener("submit", (event) => {
    event.preventDefault();
    [token, at.token.value] = [at.token.value, ""];
    guarded(offerModels);
  });
  viewer.onChange(fill);
  const panel = element("div", { className: "retreg" }, element("style", { textContent: STYLES }),
    labelled("Fixed series", at.fixed), labelled("Moving series", at.moving), labelled("Model", at.model),
    at.login, element("div", {}, at.start, at.cancel), at.progress, at.said, element("div", {}, at.overlay, at.look),
    element("small", { textContent: "Research software, not a medical device." }));
  return { panel, open: () => { fill(); guarded(offerModels); } };
}

// OHIF draws panels with React; this is an element of its kind whose inside we fill ourselves.
function getPanelModule(managers) {
  let made;
  const hold = (node) => {
    if (!node) return;
    made ??= panelOf(viewerOf(managers));
    node.replaceChildren(made.panel);
    made.open();
  };
  const component = () => ({ $$typeof: Symbol.for("react.element"), type: "div", key: null, ref: hold,
    props: {}, _owner: null, _store: {} });
  return [{ name: "registration", iconName: "tab-linear", iconLabel: "Registration",
    label: "Registration", component }];
}

export default { id: "@retreg/extension", getPanelModule };
