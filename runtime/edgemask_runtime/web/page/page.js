"use strict";

const KEPT_POINTS = 240;
const STATUS_MS = 2000;
const RETRY_MS = 2000;
const MAX_LINES = 12;
const HEADER_LENGTH = "Inference-Header-Content-Length";
const byId = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const views = new Map();
const decoder = new TextDecoder();
let version = "";

class Refused extends Error {}

async function ask(path) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers });
  if (response.status === 401) throw new Refused("the token is missing or wrong");
  if (!response.ok) throw new Error((await response.json()).error ?? response.statusText);
  return response;
}

/** One pipeline: its picture with the answer drawn on it, plots and counts. */
class View {
  constructor(name) {
    this.name = name;
    this.number = -1;
    this.points = [];
    const node = byId("pipeline").content.cloneNode(true);
    this.parts = Object.fromEntries([...node.querySelectorAll("[data-is]")].map((it) => [it.dataset.is, it]));
    this.parts.name.textContent = name;
    byId("pipelines").append(node);
    this.follow();
  }

  async follow() {
    for (;;) {
      try {
        const response = await ask(`pipelines/${encodeURIComponent(this.name)}/live?after=${this.number}`);
        if (response.status === 200) await this.show(response);
      } catch (error) {
        this.parts.invalid.textContent = `no connection: ${error.message}`;
        if (error instanceof Refused) return views.delete(this.name);
        await wait(RETRY_MS);
      }
      await new Promise(requestAnimationFrame);
    }
  }

  /** The message is one: a picture can never stand beside another frame's answer. */
  async show(response) {
    const length = Number(response.headers.get(HEADER_LENGTH));
    const content = await response.arrayBuffer();
    const told = JSON.parse(decoder.decode(content.slice(0, length)));
    const picture = content.byteLength > length ? await createImageBitmap(new Blob([content.slice(length)])) : null;
    this.number = told.number;
    this.parts.invalid.textContent = told.invalid ? `no valid answer: ${told.invalid}` : "";
    if (!told.answer) return;
    if (picture) this.draw(picture, told);
    this.list(told.answer);
    this.parts.suspicious.hidden = told.answer.suspicious !== true;
    this.parts.picture.dataset.frame = picture ? told.answer.frame : "";
    this.points = [...this.points, { age: told.answer.age_ms, latency: told.answer.latency_ms }].slice(-KEPT_POINTS);
    plot(this.parts.plot, this.points);
  }

  draw(picture, told) {
    const canvas = this.parts.picture;
    [canvas.width, canvas.height] = [picture.width, picture.height];
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    picture.close();
    const scale = canvas.width / told.size[0];
    const line = Math.max(1, canvas.width / 240);
    context.lineWidth = line;
    context.font = `${Math.max(9, line * 7)}px system-ui, sans-serif`;
    context.textBaseline = "bottom";
    for (const found of told.answer.detections ?? []) drawDetection(context, found, scale, line);
  }

  list(answer) {
    const seen = (answer.detections ?? []).map((it) => [labelled(it), it.score]);
    const measured = (answer.values ?? []).map((it) => [`${number(it.value)} ${it.unit}`, null]);
    const rows = [...answer.top.map((it) => [it.label ?? String(it.index), it.score]), ...seen, ...measured];
    this.parts.answer.replaceChildren(...rows.slice(0, MAX_LINES).map(([label, score]) => row(label, score)));
    const facts = [answer.name, `frame ${answer.frame}`, answer.captured_at, `bundle ${answer.digest.slice(0, 12)}`];
    this.parts.facts.textContent = facts.join(" · ");
  }

  count(tally) {
    const state = tally.model_down ? "model down" : tally.state;
    this.parts.state.textContent = state;
    this.parts.state.classList.toggle("bad", !["running", "starting"].includes(state));
    const own = ["captured", "answered", "dropped", "expired", "failed", "suspicious"];
    const times = ["age", "infer", "wait", "read"];
    const sinks = Object.entries(tally.sinks).map(([name, it]) => [name, `${it.delivered} delivered`, `${it.dropped} dropped`, `${it.expired} expired`, `${it.failed} failed`]);
    table(this.parts.counts, [own, own.map((name) => tally[name])]);
    for (const name of times) addRow(this.parts.counts, "td", [name, `median ${number(tally[name].p50_ms)} ms`, `p99 ${number(tally[name].p99_ms)} ms`]);
    for (const cells of sinks) addRow(this.parts.counts, "td", cells);
  }
}

function drawDetection(context, found, scale, line) {
  const [left, top, right, bottom] = found.box.map((side) => (side ?? 0) * scale);
  context.strokeStyle = context.fillStyle = "#ffd33d";
  context.strokeRect(left, top, right - left, bottom - top);
  for (const [x, y] of found.keypoints ?? []) context.fillRect(x * scale - line, y * scale - line, 2 * line, 2 * line);
  const text = `${labelled(found)} ${found.score === null ? "" : found.score.toFixed(2)}`;
  const height = parseFloat(context.font) * 1.3;
  const above = Math.max(height, top);
  context.fillRect(left, above - height, context.measureText(text).width + 2 * line, height);
  context.fillStyle = "#000";
  context.fillText(text, left + line, above);
}

function labelled(found) {
  const who = found.recognised?.[0];
  const name = found.label ?? String(found.index);
  return who ? `${name}: ${who.label ?? who.index}` : name;
}

function row(label, score) {
  const item = document.createElement("li");
  const [name, meter, value] = ["span", "meter", "b"].map((tag) => document.createElement(tag));
  name.textContent = label;
  value.textContent = score === null ? "" : score.toFixed(3);
  meter.value = score ?? 0;
  meter.hidden = score === null || score < 0 || score > 1;
  item.append(name, meter, value);
  return item;
}

/** Age and latency over the latest answers, from 0 to the largest. */
function plot(canvas, points) {
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const top = Math.max(1, ...points.map((it) => Math.max(it.age, it.latency)));
  const { width, height } = canvas;
  const base = height - 4;
  context.clearRect(0, 0, width, height);
  context.font = "14px system-ui, sans-serif";
  context.fillStyle = context.strokeStyle = style.color;
  context.fillText(`${number(top)} ms`, 2, 14);
  context.globalAlpha = 0.3;
  context.strokeRect(0.5, base + 0.5, width, 0);
  context.globalAlpha = 1;
  for (const name of ["age", "latency"]) {
    context.strokeStyle = getComputedStyle(canvas.parentElement.querySelector(`.${name}`)).color;
    context.lineWidth = 2;
    context.beginPath();
    points.forEach((it, at) => context.lineTo((at * width) / (KEPT_POINTS - 1), base - (it[name] / top) * (base - 20)));
    context.stroke();
  }
}

function number(value) {
  return value === null ? "?" : Number(value.toPrecision(3)).toString();
}

function addRow(target, tag, cells) {
  const line = target.insertRow();
  for (const cell of cells) {
    const made = document.createElement(tag);
    made.textContent = cell;
    line.append(made);
  }
}

function table(target, [head, ...lines]) {
  target.replaceChildren();
  addRow(target, "th", head);
  for (const line of lines) addRow(target, "td", line);
}

function showModels(models) {
  const head = ["model", "state", "engine", "restarts", "bundle"];
  const lines = Object.entries(models).map(([name, it]) => {
    const engine = it.engine ? `${it.engine.name} ${it.engine.version}, ${it.engine.provider}` : "";
    return [name, it.trouble ?? "ready", engine, it.restarts ?? 0, (it.digest ?? "").slice(0, 12)];
  });
  table(byId("models"), [head, ...lines]);
}

function showMachine(machine) {
  const memory = Object.entries(machine.memory_bytes).map(([name, bytes]) => [`memory, ${name}`, `${number(bytes / 1e6)} MB`]);
  const warmth = Object.entries(machine.celsius).map(([name, value]) => [name, `${number(value)} °C`]);
  const power = Object.entries(machine.watts).map(([name, value]) => [name, `${number(value)} W`]);
  const nodes = [...memory, ...warmth, ...power].flatMap(([name, value]) => {
    const [term, said] = ["dt", "dd"].map((tag) => document.createElement(tag));
    [term.textContent, said.textContent] = [name, value];
    return [term, said];
  });
  byId("machine").replaceChildren(...nodes);
}

function showEvents(events) {
  const lines = events.slice(-50).reverse().map((it) => {
    const [item, time] = ["li", "time"].map((tag) => document.createElement(tag));
    time.textContent = it.at;
    item.append(time, ` ${it.kind}: ${it.where}: ${it.text}`);
    return item;
  });
  byId("events").replaceChildren(...lines);
}

function showStatus(status) {
  // Why: after an update of the daemon the page that is open is the old one.
  if (version && version !== status.version) location.reload();
  version = byId("version").textContent = status.version;
  byId("alarm").hidden = !status.alarm;
  byId("alarm").textContent = `ALARM: ${status.alarm}`;
  for (const [name, tally] of Object.entries(status.pipelines)) {
    if (!views.has(name)) views.set(name, new View(name));
    views.get(name).count(tally);
  }
  showModels(status.models);
  showMachine(status.machine);
  showEvents(status.events);
}

async function watch() {
  for (;;) {
    try {
      showStatus(await (await ask("status")).json());
      byId("connection").textContent = "connected";
    } catch (error) {
      byId("connection").textContent = `no connection: ${error.message}`;
      if (error instanceof Refused) {
        byId("access").hidden = false;
        return;
      }
    }
    await wait(STATUS_MS);
  }
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value);
  byId("token").value = "";
  byId("access").hidden = true;
  byId("pipelines").replaceChildren();
  views.clear();
  watch();
});
watch();
