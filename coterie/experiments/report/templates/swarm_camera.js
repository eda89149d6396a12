// A camera that circles a point, and puts places on the screen.

const NEAR = 0.15;

class Camera {
  constructor(target, distance) {
    this.home = { target: [...target], distance, azimuth: -1.05, elevation: 0.46, lens: 1 };
    this.focal = 1;
    this.x = 0;
    this.y = 0;
    this.depth = 0;
    this.reset();
  }

  reset() {
    Object.assign(this, this.home, { target: [...this.home.target] });
  }

  // From far away, so that what is parallel looks so.
  look(azimuth, elevation) {
    Object.assign(this, { azimuth, elevation, lens: 12 });
  }

  turn(across, up) {
    this.lens = 1;
    this.azimuth -= across;
    this.elevation = Math.max(-0.1, Math.min(Math.PI / 2, this.elevation + up));
  }

  zoom(factor) {
    this.distance = Math.max(0.6, Math.min(60, this.distance * factor));
  }

  // Move the point that is looked at, in pixels of the screen.
  shift(across, up) {
    const scale = (this.distance * this.lens) / this.focal;
    for (let k = 0; k < 3; k += 1) this.target[k] += scale * (up * this.upward[k] - across * this.right[k]);
  }

  // To be called before a picture is drawn.
  aim(width, height) {
    const [ca, sa, ce, se] = [
      Math.cos(this.azimuth), Math.sin(this.azimuth), Math.cos(this.elevation), Math.sin(this.elevation),
    ];
    this.forward = [-ce * ca, -ce * sa, -se];
    this.right = [-sa, ca, 0];
    this.upward = [-se * ca, -se * sa, ce];
    this.eye = this.target.map((value, k) => value - this.distance * this.lens * this.forward[k]);
    this.focal = 2 * this.lens * Math.min(height, width * 0.8);
    this.middle = [width / 2, height / 2];
  }

  // Sets x, y (pixels) and depth (m); what is behind has a depth below NEAR.
  project(px, py, pz) {
    const dx = px - this.eye[0], dy = py - this.eye[1], dz = pz - this.eye[2];
    const { forward, right, upward } = this;
    this.depth = dx * forward[0] + dy * forward[1] + dz * forward[2];
    const scale = this.focal / Math.max(this.depth, NEAR);
    this.x = this.middle[0] + scale * (dx * right[0] + dy * right[1] + dz * right[2]);
    this.y = this.middle[1] - scale * (dx * upward[0] + dy * upward[1] + dz * upward[2]);
    return this.depth > NEAR;
  }

  depthOf(p) {
    const { eye, forward } = this;
    return (p[0] - eye[0]) * forward[0] + (p[1] - eye[1]) * forward[1] + (p[2] - eye[2]) * forward[2];
  }

  // Adds a straight line to the path, without what is behind.
  trace(context, a, b) {
    const da = this.depthOf(a) - 2 * NEAR, db = this.depthOf(b) - 2 * NEAR;
    if (da < 0 && db < 0) return;
    const cut = da / (da - db);
    const between = () => a.map((value, k) => value + cut * (b[k] - value));
    this.project(...(da < 0 ? between() : a));
    context.moveTo(this.x, this.y);
    this.project(...(db < 0 ? between() : b));
    context.lineTo(this.x, this.y);
  }
}
