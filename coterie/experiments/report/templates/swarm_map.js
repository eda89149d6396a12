// Who attends to whom, as a map: a row for each drone, a column for each that it may attend to, obstacles last.

const MAP = { label: 18, most: 21, numbered: 12, biggest: 128 };

const map = {
  canvas: find("map"),
  isMean: false,
  mean: null,

  get isShown() {
    return this.canvas !== null && flight.weights > 0 && flight.drones <= MAP.biggest;
  },

  get columns() {
    return flight.drones + (flight.weights > flight.degree ? 1 : 0);
  },

  // Weights of all drones at a moment, added to rows; who is gone attends to nobody.
  add(moment, rows) {
    for (let i = 0; i < flight.drones; i += 1) {
      if (flight.isGone(moment, i)) continue;
      for (const [other, weight] of flight.heeds(moment, i)) rows[i * this.columns + (other < 0 ? flight.drones : other)] += weight;
    }
  },

  now(moment) {
    const rows = new Float32Array(flight.drones * this.columns);
    this.add(moment, rows);
    return rows;
  },

  // The mean over the moments in which a drone was there.
  whole() {
    if (this.mean) return this.mean;
    this.mean = new Float32Array(flight.drones * this.columns);
    for (let t = 0; t < flight.moments; t += 1) this.add(t, this.mean);
    for (let i = 0; i < flight.drones; i += 1) {
      for (let j = 0; j < this.columns; j += 1) this.mean[i * this.columns + j] /= flight.end(i) || 1;
    }
    return this.mean;
  },

  draw(moment) {
    if (!this.isShown) return;
    const rows = this.isMean ? this.whole() : this.now(moment), wide = this.canvas.clientWidth - MAP.label;
    const cell = Math.min(MAP.most, wide / this.columns);
    this.canvas.style.height = `${Math.ceil(MAP.label + cell * flight.drones)}px`;
    const context = this.canvas.getContext("2d"), density = fit(this.canvas), [top, left] = [MAP.label, MAP.label];
    context.scale(density, density);
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.cell = cell;
    for (let i = 0; i < flight.drones; i += 1) {
      this.name(context, i, left / 2, top + cell * (i + 0.5), cell);
      this.name(context, i, left + cell * (i + 0.5), top / 2, cell);
      context.fillStyle = theme.line;
      context.globalAlpha = i === state.selected ? 1 : 0.45;
      context.fillRect(left, top + cell * i, cell * this.columns - (cell > 6 ? 1 : 0), cell - (cell > 6 ? 1 : 0));
      for (let j = 0; j < this.columns; j += 1) this.paint(context, i, j, rows[i * this.columns + j]);
    }
    if (this.columns > flight.drones) this.name(context, -1, left + cell * (flight.drones + 0.5), top / 2, cell);
  },

  paint(context, i, j, weight) {
    if (weight < 0.002) return;
    const x = MAP.label + this.cell * j, y = MAP.label + this.cell * i, gap = this.cell > 6 ? 1 : 0;
    context.globalAlpha = Math.min(1, weight);
    context.fillStyle = j < flight.drones ? theme.colours[j] : `rgb(${theme.pillarEdge})`;
    context.fillRect(x, y, this.cell - gap, this.cell - gap);
    if (flight.drones > MAP.numbered || this.cell < 18) return;
    context.globalAlpha = 1;
    context.fillStyle = theme.ink;
    context.font = "10px system-ui, sans-serif";
    context.fillText((100 * weight).toFixed(0), x + (this.cell - gap) / 2, y + (this.cell - gap) / 2 + 0.5);
  },

  // A drone's number in its colour, or only the colour where there is no room; -1: the obstacles.
  name(context, i, x, y, cell) {
    const size = Math.min(cell - 2, 15);
    context.globalAlpha = 1;
    context.fillStyle = i < 0 ? `rgb(${theme.pillarEdge})` : theme.colours[i];
    if (cell < 11 || i < 0) return void context.fillRect(x - size / 2, y - size / 2, size, size);
    context.font = `600 ${i === state.selected ? 13 : 11}px system-ui, sans-serif`;
    context.fillText(String(i), x, y);
  },

  begin() {
    if (this.canvas === null) return;
    find("map-panel").hidden = !this.isShown;
    find("map-time").addEventListener("change", () => {
      this.isMean = find("map-time").value === "1";
      state.isStale = true;
    });
    this.canvas.addEventListener("click", (event) => {
      const row = Math.floor((event.offsetY - MAP.label) / this.cell);
      if (row >= 0 && row < flight.drones) select(row === state.selected ? -1 : row);
    });
  },
};
