// The picture: room, obstacles, goals, trails, drones, and what they attend to.

const FLASH = 0.7; // seconds that a contact is seen
const AROUND = Array.from({ length: 29 }, (_, i) => [Math.cos((i * Math.PI) / 14), Math.sin((i * Math.PI) / 14)]);
const EIGHTH = AROUND.filter((_, k) => k % 4 === 0);
const ROTORS = [[0.7071, -0.7071], [-0.7071, -0.7071], [-0.7071, 0.7071], [0.7071, 0.7071]];

function hull(points) {
  points.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (order) => {
    const kept = [];
    for (const p of order) {
      while (kept.length > 1) {
        const [a, b] = kept.slice(-2);
        if ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0) break;
        kept.pop();
      }
      kept.push(p);
    }
    return kept.slice(0, -1);
  };
  return [...half(points), ...half([...points].reverse())];
}

class Scene {
  constructor(canvas, flight, camera) {
    Object.assign(this, { canvas, flight, camera, context: canvas.getContext("2d") });
    this.poses = Array.from({ length: flight.drones }, () => new Float32Array(7));
    this.screen = Array.from({ length: flight.drones }, () => ({ x: 0, y: 0, depth: 0, radius: 0, seen: false }));
    const { high } = flight.bounds();
    this.top = Math.min(flight.room[2], high[2] + 0.8);
    this.size = 1;
    this.view = "";
    this.kept = null; // pictures of obstacles, while nothing but drones moves
  }

  draw(time, { trail, heeds, selected, theme }) {
    const { canvas, context, camera, flight } = this;
    Object.assign(this, { time, moment: flight.moment(time), selected, theme });
    const density = canvas.width / canvas.clientWidth;
    context.setTransform(density, 0, 0, density, 0, 0);
    camera.aim(canvas.clientWidth, canvas.clientHeight);
    this.keep(density);
    for (let i = 0; i < flight.drones; i += 1) this.place(i);
    this.drawGround();
    this.drawGoals();
    if (trail > 0) this.drawTrails(trail);
    this.drawBodies();
    if (heeds !== "off") this.drawHeeds(heeds);
    this.drawFlashes();
    if (flight.drones <= 40) this.drawNumbers();
  }

  // From the second picture of a view on, obstacles are kept: drawing them anew took most of the time.
  keep(density) {
    const { camera, theme } = this, view = [...camera.eye, ...camera.forward, ...camera.middle, camera.focal, density, theme.isDark].join();
    if (view !== this.view) this.kept = null;
    else if (!this.kept) this.kept = { density, pictures: new Map() };
    this.view = view;
  }

  place(drone) {
    const { camera, flight } = this, pose = this.poses[drone], spot = this.screen[drone];
    flight.pose(this.time, drone, pose);
    spot.gone = flight.isGone(this.moment, drone);
    spot.seen = camera.project(pose[0], pose[1], pose[2]) && !spot.gone;
    Object.assign(spot, { x: camera.x, y: camera.y, depth: camera.depth });
    spot.radius = (this.size * flight.arm * camera.focal) / Math.max(camera.depth, NEAR);
  }

  // A closed polygon of places; false if a part of it is behind.
  outline(places) {
    const { context, camera } = this;
    context.beginPath();
    for (const place of places) {
      if (!camera.project(...place)) return false;
      context.lineTo(camera.x, camera.y);
    }
    context.closePath();
    return true;
  }

  drawGround() {
    const { context, camera, flight, theme } = this, [wide, deep, high] = flight.room;
    const sky = context.createLinearGradient(0, 0, 0, this.canvas.clientHeight);
    sky.addColorStop(0, theme.sky);
    sky.addColorStop(1, theme.haze);
    context.fillStyle = sky;
    context.fillRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    const [x, y] = [wide / 2, deep / 2];
    if (this.outline([[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]])) {
      context.fillStyle = theme.floor;
      context.fill();
    }
    context.lineWidth = 1;
    context.strokeStyle = theme.grid;
    context.beginPath();
    const every = Math.max(1, Math.round(Math.max(wide, deep) / 20));
    for (let gx = Math.ceil(-x); gx <= x; gx += every) camera.trace(context, [gx, -y, 0], [gx, y, 0]);
    for (let gy = Math.ceil(-y); gy <= y; gy += every) camera.trace(context, [-x, gy, 0], [x, gy, 0]);
    context.stroke();
    context.strokeStyle = theme.edge;
    context.beginPath();
    for (const [a, b] of [[[-x, -y], [x, -y]], [[x, -y], [x, y]], [[x, y], [-x, y]], [[-x, y], [-x, -y]]]) {
      camera.trace(context, [...a, 0], [...b, 0]);
      camera.trace(context, [...a, 0], [...a, high]);
      camera.trace(context, [...a, high], [...b, high]);
    }
    context.stroke();
    this.drawShadows();
  }

  drawShadows() {
    const { context, camera, flight, theme } = this;
    for (let i = 0; i < flight.obstacles.length; i += 2) {
      const [x, y] = [flight.obstacles[i], flight.obstacles[i + 1]];
      if (!this.outline(AROUND.map(([c, s]) => [x + flight.radius * c, y + flight.radius * s, 0]))) continue;
      context.fillStyle = theme.foot;
      context.fill();
    }
    for (let i = 0; i < flight.drones; i += 1) {
      if (!this.screen[i].seen) continue;
      const [x, y, z] = this.poses[i], radius = flight.arm * this.size * (1 + 0.15 * z);
      if (!this.outline(EIGHTH.map(([c, s]) => [x + radius * c, y + radius * s, 0]))) continue;
      context.globalAlpha = 0.34 / (1 + 0.5 * z);
      context.fillStyle = theme.shadow;
      context.fill();
      if (flight.drones > 40 && i !== this.selected) continue;
      context.globalAlpha = i === this.selected ? 0.5 : 0.16;
      context.strokeStyle = theme.shadow;
      context.lineWidth = 1;
      context.beginPath();
      camera.trace(context, [x, y, 0], [x, y, z]);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  drawGoals() {
    const { context, camera, flight, theme } = this, isShared = flight.goalsAtOnce === 1;
    for (let i = 0; isShared && i < flight.drones; i += 1) if (this.screen[i].gone) this.drawWreck(i);
    for (let i = 0; i < (isShared ? 1 : flight.drones); i += 1) {
      if (this.screen[i].gone && !isShared) {
        this.drawWreck(i);
        continue;
      }
      const g = flight.goalIndex(this.moment, i);
      if (!camera.project(flight.goals[g], flight.goals[g + 1], flight.goals[g + 2])) continue;
      const [x, y] = [camera.x, camera.y], most = flight.drones > 40 ? 4 : 9;
      const radius = Math.max(2.5, Math.min(most, (0.11 * camera.focal) / camera.depth)) * (isShared ? 1.4 : 1);
      context.strokeStyle = isShared ? theme.ink : theme.colours[i];
      context.globalAlpha = isShared || this.selected === i ? 0.95 : this.selected >= 0 ? 0.3 : flight.drones > 40 ? 0.6 : 0.95;
      context.lineWidth = flight.drones > 40 ? 1 : 1.5;
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      for (const [c, s] of isShared || flight.drones <= 40 ? [[1, 0], [0, 1], [-1, 0], [0, -1]] : []) {
        context.moveTo(x + 0.45 * radius * c, y + 0.45 * radius * s);
        context.lineTo(x + 1.5 * radius * c, y + 1.5 * radius * s);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
    if (this.selected >= 0 && this.screen[this.selected].seen) {
      const g = flight.goalIndex(this.moment, this.selected);
      context.strokeStyle = theme.colours[this.selected];
      context.setLineDash([3, 5]);
      context.beginPath();
      camera.trace(context, [...this.poses[this.selected].slice(0, 3)], [...flight.goals.slice(g, g + 3)]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  // Where a drone was lost.
  drawWreck(i) {
    const { context, theme } = this, { x, y } = this.screen[i], arm = 5;
    Object.assign(context, { strokeStyle: theme.colours[i], globalAlpha: 0.7, lineWidth: 2 });
    context.beginPath();
    for (const side of [-arm, arm]) {
      context.moveTo(x - side, y - arm);
      context.lineTo(x + side, y + arm);
    }
    context.stroke();
  }

  drawTrails(seconds) {
    const { context, camera, flight, theme } = this, last = this.moment;
    const first = Math.max(0, Math.ceil((this.time - seconds) * flight.hz));
    const isMany = flight.drones > 40, bands = isMany ? 4 : 8;
    const stride = Math.max(1, Math.round(((last - first) * flight.drones) / (isMany ? 4000 : 9000)));
    context.lineJoin = isMany ? "bevel" : "round";
    for (let i = 0; i < flight.drones; i += 1) {
      const isDim = this.selected >= 0 && this.selected !== i;
      context.strokeStyle = theme.colours[i];
      for (let band = 0; band < bands; band += 1) {
        const from = first + Math.floor(((last - first) * band) / bands / stride) * stride;
        const to = band === bands - 1 ? last : first + Math.floor(((last - first) * (band + 1)) / bands / stride) * stride;
        context.beginPath();
        let isDown = false;
        for (let t = from; ; t = Math.min(t + stride, to)) {
          const k = 3 * (t * flight.drones + i);
          const seen = camera.project(flight.places[k], flight.places[k + 1], flight.places[k + 2]);
          if (seen && isDown) context.lineTo(camera.x, camera.y);
          else if (seen) context.moveTo(camera.x, camera.y);
          isDown = seen;
          if (t >= to) break;
        }
        if (band === bands - 1 && isDown && !flight.isGone(last, i)) context.lineTo(this.screen[i].x, this.screen[i].y);
        context.globalAlpha = (isDim ? 0.2 : 0.85) * ((band + 1) / bands) ** 1.5;
        context.lineWidth = 0.8 + (1.4 * (band + 1)) / bands;
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  // Obstacles and drones, the farthest first.
  drawBodies() {
    const { flight, camera } = this, bodies = [];
    const far = (x, y) => Math.hypot(x - camera.eye[0], y - camera.eye[1]);
    for (let i = 0; i < flight.obstacles.length; i += 2) {
      const [x, y] = [flight.obstacles[i], flight.obstacles[i + 1]];
      bodies.push({ far: far(x, y), draw: () => (this.kept ? this.showCylinder(i, x, y) : this.drawCylinder(x, y)) });
    }
    for (let i = 0; i < flight.drones; i += 1) {
      if (this.screen[i].seen) bodies.push({ far: far(...this.poses[i]), draw: () => this.drawDrone(i) });
    }
    bodies.sort((a, b) => b.far - a.far);
    for (const body of bodies) body.draw();
  }

  // What fades from the foot of an obstacle to its drawn end.
  fading(x, y, colour, strength, isLight = false) {
    const { context, camera } = this;
    camera.project(x, y, 0);
    const foot = [camera.x, camera.y];
    camera.project(x, y, this.top);
    const length = Math.hypot(camera.x - foot[0], camera.y - foot[1]);
    const alpha = (share) => `rgb(${colour} / ${(share * strength).toFixed(3)})`;
    if (length < 40) return alpha(isLight ? 0 : 0.6);
    const fade = context.createLinearGradient(...foot, camera.x, camera.y);
    fade.addColorStop(0, alpha(isLight ? 0 : 1));
    fade.addColorStop(isLight ? 0.15 : 0.5, alpha(0.8));
    fade.addColorStop(1, alpha(0));
    return fade;
  }

  // As `drawCylinder`, by a picture of it that is made once.
  showCylinder(index, x, y) {
    const { context, kept } = this;
    if (!kept.pictures.has(index)) kept.pictures.set(index, this.pictureCylinder(x, y));
    const picture = kept.pictures.get(index);
    if (picture) context.drawImage(picture.image, picture.left, picture.top, picture.wide, picture.high);
  }

  // What of an obstacle is on the canvas, in whole pixels, and where; null if nothing is.
  pictureCylinder(x, y) {
    const { canvas, camera, flight, kept: { density } } = this, low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    for (const z of [0, this.top]) {
      for (const [c, s] of AROUND) {
        if (!camera.project(x + flight.radius * c, y + flight.radius * s, z)) return null;
        [camera.x, camera.y].forEach((value, k) => {
          low[k] = Math.min(low[k], density * value - 2);
          high[k] = Math.max(high[k], density * value + 2);
        });
      }
    }
    const [left, top] = low.map((value) => Math.max(0, Math.floor(value)));
    const image = document.createElement("canvas");
    image.width = Math.min(canvas.width, Math.ceil(high[0])) - left;
    image.height = Math.min(canvas.height, Math.ceil(high[1])) - top;
    if (Math.min(canvas.width, high[0]) <= left || Math.min(canvas.height, high[1]) <= top) return null;
    const context = this.context;
    this.context = image.getContext("2d");
    this.context.setTransform(density, 0, 0, density, -left, -top);
    this.drawCylinder(x, y);
    this.context = context;
    return { image, left: left / density, top: top / density, wide: image.width / density, high: image.height / density };
  }

  drawCylinder(x, y) {
    const { context, camera, flight, theme } = this;
    const shape = (radius, dx, dy) => {
      const points = [];
      for (const z of [0, this.top]) {
        for (const [c, s] of AROUND) {
          if (!camera.project(x + dx + radius * c, y + dy + radius * s, z)) return false;
          points.push([camera.x, camera.y]);
        }
      }
      context.beginPath();
      for (const point of hull(points)) context.lineTo(...point);
      context.closePath();
      return true;
    };
    const { radius } = flight;
    if (!shape(radius, 0, 0)) return;
    context.fillStyle = this.fading(x, y, theme.pillar, 0.3);
    context.fill();
    context.strokeStyle = this.fading(x, y, theme.pillarEdge, 0.65);
    context.lineWidth = 1;
    context.stroke();
    // The lit side.
    if (shape(radius * 0.35, -0.4 * radius * camera.right[0], -0.4 * radius * camera.right[1])) {
      context.fillStyle = this.fading(x, y, theme.pillarLight, theme.isDark ? 0.2 : 0.5, true);
      context.fill();
    }
    if (this.outline(AROUND.map(([c, s]) => [x + radius * c, y + radius * s, 0]))) {
      context.strokeStyle = `rgb(${theme.pillarEdge} / 0.6)`;
      context.stroke();
    }
  }

  drawDrone(i) {
    const { context, camera, theme } = this, spot = this.screen[i], pose = this.poses[i];
    const colour = theme.colours[i], isDim = this.selected >= 0 && this.selected !== i;
    context.globalAlpha = isDim ? 0.55 : 1;
    if (i === this.selected) {
      context.strokeStyle = theme.ink;
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(spot.x, spot.y, 1.9 * spot.radius + 5, 0, 2 * Math.PI);
      context.stroke();
    }
    if (spot.radius < 2.5) {
      context.fillStyle = colour;
      context.beginPath();
      context.arc(spot.x, spot.y, Math.max(1.8, spot.radius * 1.4), 0, 2 * Math.PI);
      context.fill();
      context.globalAlpha = 1;
      return;
    }
    const [w, a, b, c] = [pose[3], pose[4], pose[5], pose[6]];
    const forward = [1 - 2 * (b * b + c * c), 2 * (a * b + w * c), 2 * (a * c - w * b)];
    const left = [2 * (a * b - w * c), 1 - 2 * (a * a + c * c), 2 * (b * c + w * a)];
    const flat = (v) => [
      spot.radius * (v[0] * camera.right[0] + v[1] * camera.right[1]),
      -spot.radius * (v[0] * camera.upward[0] + v[1] * camera.upward[1] + v[2] * camera.upward[2]),
    ];
    if (spot.radius < 6.5) this.drawSmall(spot, flat(forward), flat(left), colour);
    else this.drawFrame(spot, flat(forward), flat(left), colour);
    context.globalAlpha = 1;
  }

  // Of many drones, one stroke each: as far apart as rotors are, round at the ends.
  drawSmall(spot, f, l, colour) {
    const { context } = this;
    Object.assign(context, { strokeStyle: colour, lineWidth: spot.radius * 0.75, lineCap: "round" });
    context.beginPath();
    for (const [u, v] of [ROTORS[0], ROTORS[1]]) {
      context.moveTo(spot.x + u * f[0] + v * l[0], spot.y + u * f[1] + v * l[1]);
      context.lineTo(spot.x - u * f[0] - v * l[0], spot.y - u * f[1] - v * l[1]);
    }
    context.stroke();
  }

  drawFrame(spot, f, l, colour) {
    const { context, theme } = this;
    context.lineCap = "round";
    context.strokeStyle = theme.frame;
    context.lineWidth = Math.max(1.2, spot.radius * 0.2);
    context.beginPath();
    for (const [u, v] of ROTORS) {
      context.moveTo(spot.x, spot.y);
      context.lineTo(spot.x + u * f[0] + v * l[0], spot.y + u * f[1] + v * l[1]);
    }
    context.stroke();
    const spin = 0.52, alpha = context.globalAlpha;
    context.lineWidth = Math.max(1, spot.radius * 0.11);
    for (const [u, v] of ROTORS) {
      const [x, y] = [spot.x + u * f[0] + v * l[0], spot.y + u * f[1] + v * l[1]];
      context.beginPath();
      for (let k = 0; k < AROUND.length; k += 2) {
        const [p, q] = AROUND[k];
        context.lineTo(x + spin * (p * f[0] + q * l[0]), y + spin * (p * f[1] + q * l[1]));
      }
      context.closePath();
      context.fillStyle = colour;
      context.globalAlpha = alpha * (u > 0 ? 0.85 : 0.4);
      context.fill();
      context.globalAlpha = alpha;
      context.strokeStyle = colour;
      context.stroke();
    }
    context.fillStyle = colour;
    context.beginPath();
    context.arc(spot.x, spot.y, Math.max(1.6, spot.radius * 0.34), 0, 2 * Math.PI);
    context.fill();
  }

  // A wedge from who attends to what it attends to: broad where it begins, broader and darker for a greater weight.
  drawWedge(spot, x, y, weight, colour, strength) {
    const { context } = this, length = Math.hypot(x - spot.x, y - spot.y);
    if (weight < 0.02 || length < 1) return;
    const half = 0.6 + 4 * weight, nx = (half * (y - spot.y)) / length, ny = (half * (spot.x - x)) / length;
    context.globalAlpha = strength * Math.min(0.9, 0.15 + 0.8 * weight);
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(spot.x + nx, spot.y + ny);
    context.lineTo(x + 0.12 * nx, y + 0.12 * ny);
    context.lineTo(x - 0.12 * nx, y - 0.12 * ny);
    context.lineTo(spot.x - nx, spot.y - ny);
    context.fill();
  }

  drawHeeds(mode) {
    const { flight, camera, context, theme } = this;
    for (let i = 0; i < flight.drones; i += 1) {
      if (!this.screen[i].seen || (mode === "selected" && i !== this.selected)) continue;
      const strength = this.selected >= 0 && i !== this.selected ? 0.3 : 1;
      for (const [other, weight] of flight.heeds(this.moment, i)) {
        if (other >= 0) {
          if (this.screen[other].seen) this.drawWedge(this.screen[i], this.screen[other].x, this.screen[other].y, weight, theme.colours[i], strength);
          continue;
        }
        const spot = this.nearestObstacle(this.poses[i]);
        if (spot && camera.project(...spot)) this.drawWedge(this.screen[i], camera.x, camera.y, weight, `rgb(${theme.pillarEdge})`, 0.6 * strength);
      }
    }
    context.globalAlpha = 1;
  }

  nearestObstacle([x, y, z]) {
    const { obstacles, radius } = this.flight;
    let best = Infinity, found = null;
    for (let i = 0; i < obstacles.length; i += 2) {
      const dx = obstacles[i] - x, dy = obstacles[i + 1] - y, apart = Math.hypot(dx, dy);
      if (apart < best) [best, found] = [apart, [x + (dx * (apart - radius)) / apart, y + (dy * (apart - radius)) / apart, z]];
    }
    return found;
  }

  drawNumbers() {
    const { context, screen, theme } = this;
    Object.assign(context, { font: "600 12px system-ui, sans-serif", textAlign: "left", textBaseline: "bottom" });
    screen.forEach((spot, i) => {
      if (!spot.seen) return;
      context.fillStyle = theme.colours[i];
      context.fillText(String(i), spot.x + 0.8 * spot.radius, spot.y - 0.8 * spot.radius);
    });
  }

  drawFlashes() {
    const { context, camera, flight, theme } = this;
    for (let m = flight.firstMeeting(this.time - FLASH); m < flight.meetings.length; m += 1) {
      const { time, moment, drone, what } = flight.meetings[m], age = (this.time - time) / FLASH;
      if (age < 0) break;
      if (age > 1) continue;
      const k = 3 * (moment * flight.drones + drone);
      if (!camera.project(flight.places[k], flight.places[k + 1], flight.places[k + 2])) continue;
      context.strokeStyle = what & DRONE ? theme.hitDrone : what & OBSTACLE ? theme.hitObstacle : theme.hitRoom;
      context.globalAlpha = (1 - age) ** 1.2 * (what & CONTACT ? 1 : 0.4);
      context.lineWidth = 3.5 * (1 - age) + 0.5;
      context.beginPath();
      context.arc(camera.x, camera.y, 9 + (what & CONTACT ? 26 : 12) * Math.sqrt(age), 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  // The drone that is drawn at a spot of the canvas, or -1.
  pick(x, y) {
    let best = 24, found = -1;
    this.screen.forEach((spot, i) => {
      const apart = Math.hypot(spot.x - x, spot.y - y) - spot.radius;
      if (spot.seen && apart < best) [best, found] = [apart, i];
    });
    return found;
  }
}
