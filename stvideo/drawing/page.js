"use strict";
// Draws the same mixture of picture, gray copy and colour as the package does for its PNG and MP4 files.
const data = JSON.parse(document.getElementById("data").textContent);
const DROPPED = 0, FUSED = 1, KEPT = 2, SHARED = 3;
const NAMES = ["dropped", "fused", "kept", "shared"];
const { frames, layers, area, style } = data;
const T = frames.length;
const byId = (id) => document.getElementById(id);
const view = {
  t: 0, layer: Math.max(0, layers.length - 1), hover: null, held: null, playing: false,
  show: { kept: true, fused: true, dropped: true, shared: true, edges: true, outside: true, heat: false },
};
const pictures = new Map(); // "index/width" -> {pixels, width, height}
const images = [];

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// ---- geometry: which patch lies under a pixel -------------------------------------------------------------------
function cells(length, start, extent, count) {
  const result = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const cell = Math.floor(((i + 0.5 - start) / extent) * count);
    result[i] = cell < 0 || cell >= count ? -1 : cell;
  }
  return result;
}

function patchMap(layer, width, height) {
  const x = width / area.frame_width, y = height / area.frame_height;
  return {
    rows: cells(height, area.top * y, area.height * y, layer.rows),
    columns: cells(width, area.left * x, area.width * x, layer.columns),
  };
}

const flat = (layer, t, row, column) => (layer.step_of_frame[t] * layer.rows + row) * layer.columns + column;

// ---- painting ---------------------------------------------------------------------------------------------------
function heatColor(value) { // dark violet over red to pale yellow
  const stops = [[20, 11, 53], [120, 28, 109], [203, 62, 62], [246, 140, 40], [252, 243, 160]];
  const place = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2), share = place - low;
  return stops[low].map((v, i) => v + (stops[low + 1][i] - v) * share);
}

// For a patch: [weight of the picture, weight of gray (3), constant (3)].
function mixture(layer, index) {
  const plain = [1, 0, 0, 0, 0, 0, 0];
  if (view.show.heat && layer.score) {
    const color = heatColor((layer.score[index] - layer.lowest) / (layer.highest - layer.lowest || 1));
    return [0, ...color.map(() => 0.45), ...color.map((v) => 0.55 * v)];
  }
  const state = layer.state[index];
  if (!view.show[NAMES[state]] || state === KEPT) return plain;
  if (state === DROPPED) return [0, style.dropped, style.dropped, style.dropped, 0, 0, 0];
  const strength = state === FUSED ? style.fused : style.shared;
  const color = layer.palette[layer.color[index]];
  const darker = state === SHARED && layer.fused[index] ? style.through_fused : 1;
  return [0, ...color.map((v) => darker * (1 - strength + (strength * 0.5 * v) / 255)),
    ...color.map((v) => darker * strength * 0.5 * v)];
}

function focusToken() {
  return view.held !== null ? view.held : view.hover && view.hover.token;
}

function paint(canvas, t, width, height) {
  const layer = layers[view.layer], source = picture(t, width, height);
  if (!source) return;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const output = context.createImageData(width, height), pixels = source, painted = output.data;
  const { rows, columns } = patchMap(layer, width, height);
  const first = flat(layer, t, 0, 0), mixtures = [];
  for (let i = 0; i < layer.rows * layer.columns; i++) mixtures.push(mixture(layer, first + i));
  const outside = style.outside_strength, token = focusToken();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = 4 * (y * width + x), r = pixels[at], g = pixels[at + 1], b = pixels[at + 2];
      const gray = 0.299 * r + 0.587 * g + 0.114 * b;
      let mix;
      if (rows[y] >= 0 && columns[x] >= 0) mix = mixtures[rows[y] * layer.columns + columns[x]];
      const add = style.outside_gray * outside;
      if (!mix) mix = view.show.outside ? [0, 1 - outside, 1 - outside, 1 - outside, add, add, add] : [1, 0, 0, 0, 0, 0, 0];
      let dim = 1;
      if (token !== null && token !== undefined && rows[y] >= 0 && columns[x] >= 0) {
        dim = layer.token[first + rows[y] * layer.columns + columns[x]] === token ? 1 : 0.45;
      }
      painted[at] = dim * (mix[0] * r + mix[1] * gray + mix[4]);
      painted[at + 1] = dim * (mix[0] * g + mix[2] * gray + mix[5]);
      painted[at + 2] = dim * (mix[0] * b + mix[3] * gray + mix[6]);
      painted[at + 3] = 255;
    }
  }
  context.putImageData(output, 0, 0);
  drawLines(context, layer, t, width, height, token);
}

function drawLines(context, layer, t, width, height, token) {
  const x = width / area.frame_width, y = height / area.frame_height;
  const left = area.left * x, top = area.top * y;
  const stepX = (area.width * x) / layer.columns, stepY = (area.height * y) / layer.rows;
  const id = (row, column) => layer.token[flat(layer, t, row, column)];
  const state = (row, column) => layer.state[flat(layer, t, row, column)];
  const drawn = (row, column) => {
    const s = state(row, column);
    return (s === SHARED || s === FUSED) && view.show[NAMES[s]];
  };
  const stroke = (wanted, color, thickness) => {
    context.beginPath();
    for (let row = 0; row < layer.rows; row++) {
      for (let column = 0; column < layer.columns; column++) {
        if (column && wanted(row, column, row, column - 1)) {
          context.moveTo(left + column * stepX, top + row * stepY);
          context.lineTo(left + column * stepX, top + (row + 1) * stepY);
        }
        if (row && wanted(row, column, row - 1, column)) {
          context.moveTo(left + column * stepX, top + row * stepY);
          context.lineTo(left + (column + 1) * stepX, top + row * stepY);
        }
      }
    }
    context.strokeStyle = color;
    context.lineWidth = thickness;
    context.stroke();
  };
  const different = (a, b, c, d) => id(a, b) !== id(c, d);
  if (view.show.edges && !view.show.heat && Math.min(stepX, stepY) >= 4) {
    stroke((a, b, c, d) => different(a, b, c, d) && (drawn(a, b) || drawn(c, d)), "rgb(12,12,16)", width > 300 ? 1.5 : 1);
  }
  if (token !== null && token !== undefined) {
    stroke((a, b, c, d) => different(a, b, c, d) && (id(a, b) === token || id(c, d) === token), "#ffffff", width > 300 ? 3 : 2);
  }
  if (!area.covers_frame && view.show.outside) {
    context.strokeStyle = "#ffffff";
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, top - 0.5, area.width * x + 1, area.height * y + 1);
  }
  if (view.hover && width > 300) {
    context.strokeStyle = "#ffd43b";
    context.lineWidth = 2;
    context.strokeRect(left + view.hover.column * stepX, top + view.hover.row * stepY, stepX, stepY);
  }
}

function picture(t, width, height) { // pixels of a frame at a size
  const key = `${t}/${width}`;
  if (!pictures.has(key)) {
    if (!images[t] || !images[t].complete) return null;
    const scratch = element("canvas", { width, height }), context = scratch.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = width < 3 * images[t].width; // small frames keep their pixels visible
    context.imageSmoothingQuality = "high";
    context.drawImage(images[t], 0, 0, width, height);
    pictures.set(key, context.getImageData(0, 0, width, height).data);
  }
  return pictures.get(key);
}

// ---- what is said -----------------------------------------------------------------------------------------------
function describePatch() {
  const line = byId("patch"), layer = layers[view.layer], here = view.hover;
  line.replaceChildren();
  if (!here) {
    line.append("Move over the frame, or press W A S D, to see which token a patch became.");
    return;
  }
  const index = flat(layer, view.t, here.row, here.column), state = layer.state[index], token = layer.token[index];
  const position = `frame ${data.frame_numbers[view.t]}, row ${here.row}, column ${here.column}`;
  const parts = [];
  if (state === DROPPED) {
    parts.push("dropped: no token carries it any more");
  } else {
    let patches = 0;
    const inSteps = new Set();
    layer.token.forEach((other, i) => {
      if (other === token) {
        patches++;
        inSteps.add(Math.floor(i / (layer.rows * layer.columns)));
      }
    });
    const through = layer.fused[index] && state === SHARED ? ", come in through a fused token" : "";
    const inFrames = inSteps.size * layer.tubelet_size;
    const others = patches === 1 ? "it alone" : `${patches} patches in ${inFrames} frame${inFrames > 1 ? "s" : ""}`;
    parts.push(`${NAMES[state]}${through}: token ${token} carries ${others}`);
  }
  if (layer.score) parts.push(`score ${layer.score[index].toPrecision(3)}`);
  const color = state === DROPPED ? [20, 20, 24] : state === KEPT ? [222, 216, 200] : layer.palette[layer.color[index]];
  line.append(element("span", { class: "dot", style: `background: rgb(${color})` }), `${position}. ${parts.join("; ")}.`);
}

// ---- controls ---------------------------------------------------------------------------------------------------
function draw() {
  const size = data.size;
  paint(byId("frame"), view.t, size[0], size[1]);
  byId("frame").setAttribute("aria-label", `${data.frame_labels[view.t]}, ${layers[view.layer].title}`);
  byId("time").value = view.t;
  byId("clock").textContent = data.frame_labels[view.t];
  document.querySelectorAll("#strip .cell").forEach((cell, t) => {
    cell.setAttribute("aria-current", String(t === view.t));
    paint(cell.querySelector("canvas"), t, data.thumbnail[0], data.thumbnail[1]);
  });
  document.querySelectorAll("#layers button").forEach((button, i) => {
    button.setAttribute("aria-checked", String(i === view.layer));
    button.tabIndex = i === view.layer ? 0 : -1;
  });
  const layer = layers[view.layer];
  for (const [name, box] of Object.entries(boxes)) {
    const possible = available(layer, name);
    box.input.checked = view.show[name];
    box.input.disabled = !possible;
    box.label.classList.toggle("off", !possible);
    if (name === "heat") box.label.title = possible ? `from ${layer.lowest} (dark) to ${layer.highest} (pale)` : "";
  }
  byId("play").textContent = view.playing ? "❚❚" : "▶";
  describePatch();
}

function available(layer, name) {
  if (name === "heat") return Boolean(layer.score);
  if (name === "edges") return layer.state.some((s) => s === FUSED || s === SHARED);
  if (name === "outside") return !area.covers_frame;
  return layer.state.includes(NAMES.indexOf(name));
}

function refreshHover() {
  if (!view.hover) return;
  const token = layers[view.layer].token[flat(layers[view.layer], view.t, view.hover.row, view.hover.column)];
  view.hover.token = token < 0 ? null : token;
}

function goTo(t) { view.t = (t + T) % T; refreshHover(); draw(); }

function setLayer(i) {
  view.layer = Math.min(Math.max(i, 0), layers.length - 1);
  view.held = null; // token numbers mean something else in another layer
  const layer = layers[view.layer];
  if (view.hover) {
    view.hover.row = Math.min(view.hover.row, layer.rows - 1);
    view.hover.column = Math.min(view.hover.column, layer.columns - 1);
  }
  refreshHover();
  draw();
}

function setHover(row, column) {
  if (row === null) view.hover = null;
  else view.hover = { row, column, token: null };
  refreshHover();
  draw();
}

function hold() {
  const token = view.hover && view.hover.token;
  view.held = token === null || token === undefined || view.held === token ? null : token;
  draw();
}

let timer = null;
function play(on) {
  view.playing = on;
  clearInterval(timer);
  if (on) timer = setInterval(() => goTo(view.t + 1), 450);
  draw();
}

const canvas = byId("frame");
function patchUnder(event) {
  const box = canvas.getBoundingClientRect(), layer = layers[view.layer];
  const { rows, columns } = patchMap(layer, canvas.width, canvas.height);
  const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
  const y = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
  const row = rows[y], column = columns[x];
  return row >= 0 && column >= 0 ? [row, column] : [null, null];
}
canvas.addEventListener("mousemove", (event) => {
  const [row, column] = patchUnder(event);
  if (!view.hover || view.hover.row !== row || view.hover.column !== column) setHover(row, column);
});
canvas.addEventListener("mouseleave", () => setHover(null));
canvas.addEventListener("click", (event) => { setHover(...patchUnder(event)); hold(); });

const KEYS = { kept: "1", fused: "2", dropped: "3", shared: "4", edges: "B", outside: "O", heat: "H" };
const SWATCHES = { kept: "rgb(222,216,200)", fused: "rgb(146,80,240)", dropped: "rgb(34,34,38)" };
const LABELS = {
  kept: "kept: a token of its own", fused: "fused into another token", dropped: "dropped",
  shared: "patches that share a token", edges: "lines between tokens", outside: "what the model does not see",
  heat: "scores as heat",
};
const boxes = {};
for (const name of Object.keys(KEYS)) {
  const input = element("input", { type: "checkbox", id: `show-${name}`, onchange: () => toggle(name) });
  const swatch = element("span", { class: "swatch" });
  if (SWATCHES[name]) swatch.style.background = SWATCHES[name];
  else if (name === "shared") swatch.style.background = "linear-gradient(90deg, #1fa7c9 33%, #e0579a 33% 66%, #b6c93a 66%)";
  else if (name === "heat") swatch.style.background = "linear-gradient(90deg, rgb(20,11,53), rgb(203,62,62), rgb(252,243,160))";
  else swatch.style.visibility = "hidden";
  const label = element("label", {}, input, swatch, LABELS[name], element("kbd", {}, KEYS[name]));
  boxes[name] = { input, label };
  byId("toggles").append(label);
}
function toggle(name) {
  if (available(layers[view.layer], name)) view.show[name] = !view.show[name];
  draw();
}

layers.forEach((layer, i) => {
  byId("layers").append(element("button", { type: "button", role: "radio", onclick: () => setLayer(i) },
    layer.title, element("small", {}, layer.count)));
});
frames.forEach((_, t) => {
  byId("strip").append(element("button", { type: "button", class: "cell", onclick: () => goTo(t) },
    element("canvas"), element("span", {}, data.frame_labels[t])));
});
data.predictions.forEach(([name, probability], rank) => {
  const fill = element("div", { class: "fill" });
  fill.style.width = `${100 * probability}%`;
  byId("bars").append(element("div", { class: rank ? "bar" : "bar best" }, element("span", {}, name),
    element("span", {}, `${(100 * probability).toFixed(1)} %`), element("div", { class: "track" }, fill)));
});
byId("prediction").hidden = !data.predictions.length;
byId("time").max = T - 1;
byId("time").addEventListener("input", (event) => goTo(Number(event.target.value)));
byId("play").addEventListener("click", () => play(!view.playing));
byId("theme").addEventListener("click", () => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key, layer = layers[view.layer];
  const onControl = ["BUTTON", "INPUT"].includes(event.target.tagName);
  const moves = { W: [-1, 0], S: [1, 0], A: [0, -1], D: [0, 1] };
  if (key === "ArrowRight") goTo(view.t + 1);
  else if (key === "ArrowLeft") goTo(view.t - 1);
  else if (key === "ArrowUp") setLayer(view.layer - 1);
  else if (key === "ArrowDown") setLayer(view.layer + 1);
  else if (key === " " && !onControl) play(!view.playing);
  else if (key === "Enter" && !onControl) hold();
  else if (key === "Escape") { view.held = null; setHover(null); }
  else if (moves[key]) {
    const from = view.hover || { row: layer.rows >> 1, column: layer.columns >> 1 };
    const step = view.hover ? moves[key] : [0, 0];
    setHover(Math.min(Math.max(from.row + step[0], 0), layer.rows - 1), Math.min(Math.max(from.column + step[1], 0), layer.columns - 1));
  } else {
    const name = Object.keys(KEYS).find((n) => KEYS[n] === key);
    if (!name) return;
    toggle(name);
  }
  event.preventDefault();
});

Promise.all(frames.map((source, t) => {
  images[t] = new Image();
  images[t].src = source;
  return images[t].decode();
})).then(() => { draw(); document.body.dataset.ready = "true"; });
