// What a person can do: buttons, keys, mouse, fingers.

function choose(id, key) {
  const element = find(id);
  element.value = String(state[key]);
  element.addEventListener("change", () => {
    state[key] = Number(element.value);
    state.isStale = true;
  });
}

function step(id, key, by) {
  const last = find(id).options.length - 1;
  state[key] = Math.max(0, Math.min(last, state[key] + by));
  find(id).value = String(state[key]);
  state.isStale = true;
}

function cycle(id, key) {
  state[key] = (state[key] + 1) % find(id).options.length;
  find(id).value = String(state[key]);
  state.isStale = true;
}

const KEYS = {
  " ": () => play(!state.isPlaying),
  k: () => play(!state.isPlaying),
  ",": () => { play(false); seek((flight.moment(state.time) - 1) / flight.hz); },
  ".": () => { play(false); seek((flight.moment(state.time) + 1) / flight.hz); },
  Home: () => seek(0),
  End: () => seek(flight.duration),
  "[": () => step("speed", "speed", -1),
  "]": () => step("speed", "speed", 1),
  n: () => nextContact(1),
  p: () => nextContact(-1),
  t: () => cycle("trail", "trail"),
  a: () => cycle("heeds", "heeds"),
  f: () => follow(!state.isFollowing),
  d: () => select(state.selected + 1 < flight.drones ? state.selected + 1 : -1),
  Escape: () => select(-1),
  1: () => view("home"),
  2: () => view("top"),
  3: () => view("side"),
  "+": () => camera.zoom(0.85),
  "=": () => camera.zoom(0.85),
  "-": () => camera.zoom(1 / 0.85),
};
const TURNS = { ArrowLeft: [-0.08, 0], ArrowRight: [0.08, 0], ArrowUp: [0, 0.06], ArrowDown: [0, -0.06] };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const own = event.target.closest("input, button, summary, tr");
  if (event.target === canvas && TURNS[event.key]) camera.turn(...TURNS[event.key]);
  else if (event.key === "ArrowLeft" && !own) seek(state.time - 0.5);
  else if (event.key === "ArrowRight" && !own) seek(state.time + 0.5);
  else if (KEYS[event.key] && !(own && [" ", "Home", "End"].includes(event.key))) KEYS[event.key]();
  else return;
  event.preventDefault();
  state.isStale = true;
}

// One finger or button turns, two fingers or the other button move and zoom.
function onPointers() {
  const held = new Map();
  let travelled = 0;
  const spread = () => {
    const [a, b] = [...held.values()];
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    travelled = held.size > 1 ? Infinity : 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const was = held.get(event.pointerId);
    if (!was) return;
    const [dx, dy] = [event.offsetX - was.x, event.offsetY - was.y], apart = spread();
    held.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    travelled += Math.abs(dx) + Math.abs(dy);
    if (held.size > 1) {
      camera.zoom(apart / (spread() || apart));
      camera.shift(dx / held.size, dy / held.size);
    } else if (event.shiftKey || event.buttons & 6) camera.shift(dx, dy);
    else camera.turn(dx * 0.006, dy * 0.006);
    state.isStale = true;
  });
  const release = (event) => {
    if (event.type === "pointerup" && held.size === 1 && travelled < 6) select(scene.pick(event.offsetX, event.offsetY));
    held.delete(event.pointerId);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    camera.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.0022));
    state.isStale = true;
  }, { passive: false });
}

// #t=4.2&drone=3&view=top opens the page at that moment, and still.
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1)), time = Number(asked.get("t"));
  const drone = asked.has("drone") ? Number(asked.get("drone")) : NaN;
  if (Number.isInteger(drone) && drone >= 0 && drone < flight.drones) select(drone);
  if (["top", "side"].includes(asked.get("view"))) view(asked.get("view"));
  if (asked.has("t") && Number.isFinite(time)) {
    play(false);
    seek(time);
    return true;
  }
  return false;
}

function begin() {
  find("seek").max = String(Math.round(1000 * flight.duration));
  fillTable();
  map.begin();
  if (HEEDS.length === 1) find("heeds-label").hidden = true;
  state.heeds = find("heeds").options.length > 1 && flight.drones <= 16 ? 1 : 0;
  choose("speed", "speed");
  choose("trail", "trail");
  choose("heeds", "heeds");
  find("play").addEventListener("click", () => play(!state.isPlaying));
  find("follow").addEventListener("click", () => follow(!state.isFollowing));
  find("seek").addEventListener("input", (event) => seek(Number(event.target.value) / 1000));
  find("true-size").addEventListener("change", resize);
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => view(button.dataset.view));
  const scrub = (event) => { if (event.buttons & 1) seek(chart.time(event.offsetX)); };
  chart.canvas.addEventListener("pointerdown", scrub);
  chart.canvas.addEventListener("pointermove", scrub);
  document.addEventListener("keydown", onKey);
  onPointers();
  new ResizeObserver(resize).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    theme = readTheme();
    resize();
  });
  window.addEventListener("hashchange", readAddress);
  resize();
  select(-1);
  if (!readAddress() && !matchMedia("(prefers-reduced-motion: reduce)").matches) play(true);
  requestAnimationFrame(tick);
}

begin();
