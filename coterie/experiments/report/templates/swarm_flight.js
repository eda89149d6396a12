// A recording, and what it says at any moment.

const NUMBERS = {
  uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array,
};
const [DRONE, OBSTACLE, WALL, FLOOR, CEILING, GONE] = [1, 2, 4, 8, 16, 128];
const CONTACT = DRONE | OBSTACLE;
const ANY_EVENT = CONTACT | WALL | FLOOR | CEILING;

function decode({ dtype, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new NUMBERS[dtype](bytes.buffer);
}

class Flight {
  constructor({ header, arrays, colours }) {
    Object.assign(this, header);
    this.colours = colours;
    [this.moments, this.drones] = arrays.position.shape;
    this.degree = arrays.neighbours.shape[2];
    this.weights = arrays.attention.shape[2];
    this.duration = (this.moments - 1) / this.hz;
    this.places = this.metres(decode(arrays.position));
    this.attitude = decode(arrays.attitude);
    this.events = decode(arrays.events);
    this.neighbours = decode(arrays.neighbours);
    this.attention = decode(arrays.attention);
    this.reward = decode(arrays.reward);
    this.obstacles = decode(arrays.obstacles);
    this.goals = this.metres(decode(arrays.goal));
    this.goalsAtOnce = arrays.goal.shape[1];
    this.legs = this.spread(decode(arrays.goal_since));
    this.distance = this.measure();
    this.meetings = this.list();
    this.returns = this.reward.slice();
    for (let t = 1; t < this.moments; t += 1) this.returns[t] += this.returns[t - 1];
  }

  metres(numbers) {
    const places = new Float32Array(numbers.length);
    for (let i = 0; i < numbers.length; i += 1) places[i] = this.origin[i % 3] + this.step[i % 3] * numbers[i];
    return places;
  }

  // Which leg holds at each moment.
  spread(since) {
    const legs = new Int32Array(this.moments);
    for (let leg = 0; leg < since.length; leg += 1) legs.fill(leg, since[leg]);
    return legs;
  }

  goalIndex(moment, drone) {
    return 3 * (this.legs[moment] * this.goalsAtOnce + (this.goalsAtOnce > 1 ? drone : 0));
  }

  measure() {
    const found = new Float32Array(this.moments * this.drones);
    for (let t = 0, k = 0; t < this.moments; t += 1) {
      for (let i = 0; i < this.drones; i += 1, k += 1) {
        const g = this.goalIndex(t, i);
        found[k] = Math.hypot(
          this.places[3 * k] - this.goals[g], this.places[3 * k + 1] - this.goals[g + 1],
          this.places[3 * k + 2] - this.goals[g + 2],
        );
      }
    }
    return found;
  }

  // Everything that was met, in the order of time.
  list() {
    const found = [];
    for (let t = 0, k = 0; t < this.moments; t += 1) {
      for (let i = 0; i < this.drones; i += 1, k += 1) {
        if (this.events[k] & ANY_EVENT) found.push({ moment: t, time: t / this.hz, drone: i, what: this.events[k] });
      }
    }
    return found;
  }

  // The place in `meetings` of the first that is not before a time.
  firstMeeting(time) {
    let low = 0, high = this.meetings.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.meetings[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  isGone(moment, drone) {
    return (this.events[moment * this.drones + drone] & GONE) !== 0;
  }

  // How many moments a drone was there.
  end(drone) {
    let low = 0, high = this.moments;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.isGone(middle, drone)) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  moment(time) {
    return Math.max(0, Math.min(this.moments - 1, Math.floor(time * this.hz + 1e-6)));
  }

  // Where a drone is between two moments: x, y, z and a quaternion into out[0..6].
  pose(time, drone, out) {
    const at = Math.max(0, Math.min(this.moments - 1, time * this.hz));
    const low = Math.floor(at), high = Math.min(low + 1, this.moments - 1), share = at - low;
    const a = low * this.drones + drone, b = high * this.drones + drone;
    for (let k = 0; k < 3; k += 1) out[k] = this.places[3 * a + k] * (1 - share) + this.places[3 * b + k] * share;
    let along = 0;
    for (let k = 0; k < 4; k += 1) along += this.attitude[4 * a + k] * this.attitude[4 * b + k];
    const sign = along < 0 ? -share : share;
    let length = 0;
    for (let k = 0; k < 4; k += 1) {
      out[3 + k] = this.attitude[4 * a + k] * (1 - share) + this.attitude[4 * b + k] * sign;
      length += out[3 + k] ** 2;
    }
    for (let k = 0; k < 4; k += 1) out[3 + k] /= Math.sqrt(length) || 1;
  }

  // Whom a drone attends to: pairs of a drone (or -1: the obstacles) and a weight.
  heeds(moment, drone) {
    const k = moment * this.drones + drone, found = [];
    for (let n = 0; n < this.degree; n += 1) {
      const other = this.neighbours[k * this.degree + n];
      const weight = this.weights ? this.attention[k * this.weights + n] / 255 : 1 / this.degree;
      if (other >= 0) found.push([other, weight]);
    }
    if (this.weights > this.degree) found.push([-1, this.attention[k * this.weights + this.degree] / 255]);
    return found;
  }

  // All that flies and all goals, as low and high corners.
  bounds() {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const places of [this.places, this.goals]) {
      for (let i = 0; i < places.length; i += 1) {
        low[i % 3] = Math.min(low[i % 3], places[i]);
        high[i % 3] = Math.max(high[i % 3], places[i]);
      }
    }
    return { low, high };
  }
}
