// The page around the picture: time, keys, panel.

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const TRAILS = [0, 1, 2, 4, 1e9];
const find = (id) => document.getElementById(id);
const flight = new Flight(JSON.parse(find("flight").textContent));
const canvas = find("scene");
const state = { time: 0, isPlaying: false, speed: 3, trail: 2, heeds: 0, selected: -1, isFollowing: false, isStale: true };
const HEEDS = flight.degree || flight.weights ? ["selected", "all", "off"] : ["off"];
const camera = makeCamera();
const scene = new Scene(canvas, flight, camera);
let theme = readTheme();

function makeCamera() {
  const { low, high } = flight.bounds();
  const target = low.map((value, k) => (value + high[k]) / 2);
  const size = Math.max(1.2, Math.hypot(high[0] - low[0], high[1] - low[1], 0.7 * (high[2] - low[2])));
  return new Camera(target, 1.75 * size);
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const isDark = style.getPropertyValue("--is-dark").trim() === "1";
  const names = ["sky", "haze", "floor", "grid", "edge", "foot", "shadow", "pillar", "pillar-edge", "pillar-light", "frame", "ink",
    "muted", "line", "hit-drone", "hit-obstacle", "hit-room"];
  const found = { isDark, colours: isDark ? flight.colours.dark : flight.colours.light };
  for (const name of names) {
    found[name.replace(/-(.)/g, (_, letter) => letter.toUpperCase())] = style.getPropertyValue(`--${name}`).trim();
  }
  return found;
}

function fit(element) {
  const density = Math.min(2, window.devicePixelRatio || 1);
  element.width = Math.max(1, Math.round(element.clientWidth * density));
  element.height = Math.max(1, Math.round(element.clientHeight * density));
  return density;
}

// How much larger than life drones are drawn, so that they can be seen at all.
function resize() {
  fit(canvas);
  camera.aim(canvas.clientWidth, canvas.clientHeight);
  const pixels = flight.drones > 64 ? 5 : flight.drones > 16 ? 6.5 : 9;
  const least = (pixels * camera.home.distance * camera.lens) / (flight.arm * camera.focal);
  scene.size = find("true-size").checked ? 1 : Math.max(1, Math.min(4, Math.round(2 * least) / 2));
  find("size-note").textContent = scene.size > 1 ? `Drones are drawn ${scene.size} times as large as they are.` : "Drones are drawn at their size.";
  drawMarks();
  chart.paint();
  state.isStale = true;
}

// ---- time

function seek(time) {
  state.time = Math.max(0, Math.min(flight.duration, time));
  state.isStale = true;
}

function play(isPlaying) {
  if (isPlaying && state.time >= flight.duration) seek(0);
  state.isPlaying = isPlaying;
  find("play").setAttribute("aria-pressed", String(isPlaying));
  find("play").setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  state.isStale = true;
}

function nextContact(direction) {
  const ahead = flight.meetings.filter((m) => m.what & CONTACT && direction * (m.time - state.time) > 0.02);
  const found = direction > 0 ? ahead[0] : ahead[ahead.length - 1];
  if (!found) return;
  play(false);
  seek(found.time);
}

function select(drone) {
  state.selected = drone;
  if (drone < 0) follow(false);
  find("follow").disabled = drone < 0;
  for (const row of find("drones").rows) row.setAttribute("aria-current", String(Number(row.dataset.drone) === drone));
  chart.paint();
  state.isStale = true;
}

function follow(isFollowing) {
  state.isFollowing = isFollowing && state.selected >= 0;
  find("follow").setAttribute("aria-pressed", String(state.isFollowing));
  state.isStale = true;
}

function view(name) {
  if (name === "home") {
    camera.reset();
    follow(false);
  } else camera.look(-Math.PI / 2, name === "top" ? Math.PI / 2 : 0.02);
  state.isStale = true;
}

// ---- what stands around the picture

function drawMarks() {
  const marks = find("marks"), context = marks.getContext("2d"), density = fit(marks);
  context.scale(density, density);
  const inner = marks.clientWidth - 16;
  for (const { time, what } of flight.meetings) {
    context.fillStyle = what & DRONE ? theme.hitDrone : what & OBSTACLE ? theme.hitObstacle : theme.hitRoom;
    context.globalAlpha = what & CONTACT ? 1 : 0.5;
    context.fillRect(8 + (inner * time) / (flight.duration || 1) - 1, what & CONTACT ? 0 : 4, 2, 10);
  }
}

const chart = {
  canvas: find("distances"),
  under: document.createElement("canvas"),
  inset: { left: 34, right: 8, top: 8, bottom: 20 },

  x(time) {
    const { left, right } = this.inset;
    return left + ((this.canvas.clientWidth - left - right) * time) / (flight.duration || 1);
  },

  time(x) {
    const { left, right } = this.inset;
    return ((x - left) / (this.canvas.clientWidth - left - right)) * flight.duration;
  },

  paint() {
    fit(this.canvas);
    this.under.width = this.canvas.width;
    this.under.height = this.canvas.height;
    const context = this.under.getContext("2d"), [wide, high] = [this.canvas.clientWidth, this.canvas.clientHeight];
    context.scale(this.under.width / wide, this.under.height / high);
    const most = flight.distance.reduce((a, b) => Math.max(a, b), 0.5);
    const unit = [0.25, 0.5, 1, 2, 5, 10, 25, 50, 100, 250, 500].find((u) => most / u <= 4) || 1000;
    const { top, bottom, left, right } = this.inset;
    const y = (d) => high - bottom - ((high - top - bottom) * d) / (Math.ceil(most / unit) * unit);
    this.axes(context, unit, most, y, wide - right, left);
    const stride = Math.max(1, Math.floor(flight.moments / (2 * wide)));
    const line = (value, colour, alpha, width, end = flight.moments) => {
      context.beginPath();
      for (let t = 0; t < end; t += stride) context.lineTo(this.x(t / flight.hz), y(value(t)));
      Object.assign(context, { strokeStyle: colour, globalAlpha: alpha, lineWidth: width });
      context.stroke();
    };
    const alpha = state.selected >= 0 ? 0.16 : flight.drones > 16 ? 0.35 : 0.75;
    const one = (i, strength, width) => line((t) => flight.distance[t * flight.drones + i], theme.colours[i], strength, width, flight.end(i));
    for (let i = 0; i < flight.drones; i += 1) one(i, alpha, 1.1);
    if (state.selected >= 0) one(state.selected, 1, 2);
    else line(meanDistance, theme.ink, 1, 2);
    context.globalAlpha = 1;
  },

  axes(context, unit, most, y, end, start) {
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let d = 0; d <= Math.ceil(most / unit) * unit + 1e-9; d += unit) {
      context.fillStyle = theme.line;
      context.fillRect(start, y(d), end - start, 1);
      context.fillStyle = theme.muted;
      context.fillText(String(d), start - 6, y(d));
    }
    context.textAlign = "center";
    const every = [0.5, 1, 2, 5, 10, 30, 60].find((s) => flight.duration / s <= 5) || 300;
    for (let t = 0; t <= flight.duration + 1e-9; t += every) context.fillText(`${t} s`, Math.min(this.x(t), end - 8), this.canvas.clientHeight - 7);
  },

  draw() {
    const context = this.canvas.getContext("2d"), density = this.canvas.width / this.canvas.clientWidth;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.under, 0, 0);
    context.fillStyle = theme.ink;
    context.fillRect(Math.round(this.x(state.time) * density), 0, Math.max(1, density), this.canvas.height - this.inset.bottom * density);
  },
};

function meanDistance(moment) {
  let sum = 0, count = 0;
  for (let i = 0; i < flight.drones; i += 1) {
    if (flight.isGone(moment, i)) continue;
    sum += flight.distance[moment * flight.drones + i];
    count += 1;
  }
  return count ? sum / count : 0;
}

function fillTable() {
  const body = find("drones");
  for (let i = 0; i < flight.drones; i += 1) {
    const row = body.insertRow();
    row.dataset.drone = String(i);
    row.tabIndex = i === 0 ? 0 : -1;
    const name = row.insertCell();
    const chip = document.createElement("i");
    chip.className = "chip";
    name.append(chip, `drone ${i}`);
    row.insertCell();
    row.insertCell();
    row.addEventListener("click", () => select(state.selected === i ? -1 : i));
    row.addEventListener("keydown", (event) => {
      const other = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (event.key === "Enter" || event.key === " ") select(state.selected === i ? -1 : i);
      else if (other) other.focus();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }
}

// What is not new is not laid out again.
function write(cell, text) {
  if (cell.textContent !== text) cell.textContent = text;
}

function writeTable() {
  const moment = flight.moment(state.time), contacts = new Int32Array(flight.drones);
  let all = 0;
  for (const meeting of flight.meetings) {
    if (meeting.moment > moment) break;
    if (meeting.what & CONTACT) {
      contacts[meeting.drone] += 1;
      all += 1;
    }
  }
  for (const row of find("drones").rows) {
    const i = Number(row.dataset.drone);
    if (row.dataset.colour !== theme.colours[i]) {
      row.dataset.colour = theme.colours[i];
      row.cells[0].firstChild.style.background = theme.colours[i];
    }
    const far = flight.isGone(moment, i) ? "lost" : flight.distance[moment * flight.drones + i].toFixed(2);
    write(row.cells[1], far);
    write(row.cells[2], contacts[i] ? String(contacts[i]) : "");
  }
  find("mean").textContent = `${meanDistance(moment).toFixed(2)} m`;
  find("contacts").textContent = String(all);
  find("return").textContent = flight.returns[moment].toFixed(1);
  writeHeeds(moment);
  map.draw(moment);
}

function writeHeeds(moment) {
  const list = find("heeded"), heeds = state.selected < 0 ? [] : flight.heeds(moment, state.selected);
  find("heeds-panel").hidden = heeds.length === 0;
  list.replaceChildren(...heeds.slice(0, 8).map(([other, weight]) => {
    const item = document.createElement("li"), bar = document.createElement("i"), name = document.createElement("span");
    bar.style.width = `${(100 * weight).toFixed(0)}%`;
    bar.style.background = other < 0 ? `rgb(${theme.pillarEdge})` : theme.colours[other];
    name.textContent = `${other < 0 ? "obstacles" : `drone ${other}`}${flight.weights ? ` ${(100 * weight).toFixed(0)} %` : ""}`;
    item.append(bar, name);
    return item;
  }));
}

// ---- the loop

let before = 0, written = 0;

function tick(now) {
  const passed = Math.min(0.1, (now - before) / 1000);
  before = now;
  if (state.isPlaying) {
    seek(state.time + passed * SPEEDS[state.speed]);
    if (state.time >= flight.duration) play(false);
  }
  if (state.isFollowing) {
    const pose = new Float32Array(7);
    flight.pose(state.time, state.selected, pose);
    for (let k = 0; k < 3; k += 1) camera.target[k] += (pose[k] - camera.target[k]) * Math.min(1, 6 * passed + 0.02);
    state.isStale = true;
  }
  if (state.isStale) {
    state.isStale = false;
    const heeds = HEEDS[state.heeds] === "selected" && state.selected < 0 ? "off" : HEEDS[state.heeds];
    scene.draw(state.time, { trail: TRAILS[state.trail], heeds, selected: state.selected, theme });
    chart.draw();
    find("seek").value = String(Math.round(1000 * state.time));
    find("seek").style.setProperty("--done", `${(100 * state.time) / (flight.duration || 1)}%`);
    find("clock").textContent = `${state.time.toFixed(2)} s`;
    find("seek").setAttribute("aria-valuetext", `${state.time.toFixed(2)} of ${flight.duration.toFixed(2)} seconds`);
    if (now - written > 200 || !state.isPlaying) {
      written = now;
      writeTable();
    }
  }
  requestAnimationFrame(tick);
}
