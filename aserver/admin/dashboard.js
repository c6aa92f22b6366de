"use strict";
// The dashboard: draws what /events tells (docs/operate.md). It sends nothing.

const $ = (id) => document.getElementById(id);
const LONGEST = 600; // seconds that the charts show at most; at first they show less
const SHORTEST = 120;
const MOST_EVENTS = 200;
const SVG = "http://www.w3.org/2000/svg";

const data = { samples: [], records: [], status: null, rates: new Map() };
let paused = false;
let cursor = null; // a time at which all charts show their values

// ── words ────────────────────────────────────────────────────────────────────────────────────

const round = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const rate = (value) => round(value, value < 10 ? 1 : 0);
const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${round(value, value < 10 ? 1 : 0)} ${units[unit]}`;
};
const seconds = (value) => (value < 1 ? `${round(value * 1000, value < 0.01 ? 1 : 0)} ms` : `${round(value, 2)} s`);
const span = (value) => {
  if (value < 60) return `${Math.floor(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
};
const clock = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

function announce(words) {
  $("news").textContent = words;
}

// ── charts ───────────────────────────────────────────────────────────────────────────────────

const CHARTS = {
  rate: {
    label: "Requests per second", stacked: true, show: rate, least: 1,
    series: [
      ["2xx", "blue", (s) => s.classes["2xx"]], ["3xx", "cyan", (s) => s.classes["3xx"]],
      ["4xx", "amber", (s) => s.classes["4xx"]], ["5xx", "red", (s) => s.classes["5xx"]],
      ["other", "grey", (s) => s.classes.other + s.classes["1xx"]],
    ],
    big: (s) => rate(s.rate),
  },
  latency: {
    label: "Latency", show: seconds, least: 0.001,
    series: [["p50", "blue", (s) => s.p50], ["p90", "violet", (s) => s.p90], ["p99", "red", (s) => s.p99]],
    big: (s) => (s.p99 === null ? "–" : seconds(s.p99)),
  },
  lag: {
    label: "Event loop lag", show: seconds, least: 0.01, series: [["slowest worker", "violet", (s) => s.lag]],
    big: (s) => seconds(s.lag),
  },
  memory: {
    label: "Memory of all workers", show: bytes, least: 1 << 20, filled: true,
    series: [["all workers", "blue", (s) => s.memory]],
    big: (s) => bytes(s.memory),
  },
};

function scale() {
  const last = data.samples.length ? data.samples[data.samples.length - 1].at : Date.now() / 1000;
  const first = data.samples.length ? data.samples[0].at : last;
  const shown = Math.min(LONGEST, Math.max(SHORTEST, last - first));
  return { from: last - shown, to: last };
}

function node(name, attributes, words) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (words !== undefined) made.textContent = words;
  return made;
}

/** The least round number that is not below `value`. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((each) => each >= value * 0.999);
}

function draw(id) {
  const chart = CHARTS[id];
  const svg = $(id).querySelector("svg");
  const { width, height } = svg.getBoundingClientRect();
  if (!width) return;
  const { from, to } = scale();
  const shown = data.samples.filter((s) => s.at >= from);
  const floor = height - 16;
  const x = (at) => ((at - from) / (to - from)) * width;
  const tops = shown.map((s) => {
    const values = chart.series.map(([, , of]) => of(s) ?? 0);
    return chart.stacked ? values.reduce((a, b) => a + b, 0) : Math.max(...values);
  });
  let top = Math.max(chart.least, ...tops);
  top = chart.show === bytes ? 2 ** Math.ceil(Math.log2(top)) : ceiling(top);
  const y = (value) => floor - (value / top) * (floor - 16);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    parts.push(node("line", { class: "grid", x1: 0, x2: width, y1: y(top * share) + 0.5, y2: y(top * share) + 0.5 }));
  }
  let below = shown.map(() => 0);
  for (const [, colour, of] of chart.series) {
    const values = shown.map((s, i) => (of(s) === null ? null : of(s) + (chart.stacked ? below[i] : 0)));
    const line = path(shown, values, x, y);
    if (chart.stacked || chart.filled) {
      const back = shown.map((s, i) => `L${x(s.at).toFixed(1)} ${y(below[i]).toFixed(1)}`).reverse().join("");
      const fill = chart.stacked ? 1 : 0.16;
      if (line) parts.push(node("path", { d: `${line}${back}Z`, fill: `var(--${colour})`, "fill-opacity": fill }));
      if (chart.stacked) below = values;
    }
    if (!chart.stacked) {
      parts.push(node("path", { d: line, fill: "none", stroke: `var(--${colour})`, "stroke-width": 1.75, "stroke-linejoin": "round" }));
    }
  }
  for (const record of data.records) {
    const kind = kindOf(record);
    if (kind && kind !== "recycle" && record.at > from && record.at < to) {
      parts.push(node("line", { class: `mark kind-${kind}`, x1: x(record.at), x2: x(record.at), y1: 14, y2: floor, stroke: "currentcolor" }));
    }
  }
  parts.push(node("text", { x: 0, y: 11 }, chart.show(top)));
  parts.push(...axis(width, height, to - from));
  const chosen = cursor === null ? shown[shown.length - 1] : nearest(shown, cursor);
  if (cursor !== null && chosen) {
    parts.push(node("line", { class: "cursor", x1: x(chosen.at), x2: x(chosen.at), y1: 14, y2: floor }));
    const late = x(chosen.at) > width - 60;
    parts.push(node("text", { x: x(chosen.at) + (late ? -5 : 5), y: 11, "text-anchor": late ? "end" : "start" }, clock(chosen.at)));
  }
  svg.replaceChildren(...parts);
  if (chosen) describe(id, chosen, shown);
}

function axis(width, height, shown) {
  return [
    node("text", { x: 0, y: height - 3 }, `${span(Math.ceil(shown / 10) * 10)} ago`),
    node("text", { x: width, y: height - 3, "text-anchor": "end" }, "now"),
  ];
}

function path(shown, values, x, y) {
  let drawn = "";
  let pen = "M";
  shown.forEach((s, i) => {
    if (values[i] === null) pen = "M";
    else [drawn, pen] = [`${drawn}${pen}${x(s.at).toFixed(1)} ${y(values[i]).toFixed(1)}`, "L"];
  });
  return drawn;
}

const nearest = (shown, at) => shown.reduce((best, s) => (Math.abs(s.at - at) < Math.abs(best.at - at) ? s : best), shown[0]);

function describe(id, sample, shown) {
  const chart = CHARTS[id];
  text($(id).querySelector(".big b"), chart.big(sample));
  const values = chart.series.map(([name, colour, of]) => [name, colour, of(sample)]);
  const told = values.map(([name, , value]) => `${name} ${value === null ? "none" : chart.show(value)}`).join(", ");
  $(id).querySelector("svg").setAttribute("aria-label", `${chart.label} at ${clock(sample.at)}: ${told}`);
  const legend = $(id).querySelector(".legend");
  if (legend.children.length !== values.length) {
    legend.replaceChildren(...values.map(([name, colour]) => {
      const key = element("i");
      key.style.background = `var(--${colour})`;
      return element("li", {}, key, `${name} `, element("b"));
    }));
  }
  values.forEach(([, , value], i) => {
    text(legend.children[i].querySelector("b"), value === null ? "–" : chart.show(value));
    legend.children[i].hidden = chart.stacked && i > 0 && !shown.some((s) => chart.series[i][2](s) > 0);
  });
}

function drawCharts() {
  Object.keys(CHARTS).forEach(draw);
}

// ── the server ───────────────────────────────────────────────────────────────────────────────

function showServer(status) {
  text($("target"), status.target);
  const about = `aserver ${status.version} · pid ${status.pid} · generation ${status.generation ?? "–"} · up ${span(status.uptime)}`;
  text($("about"), about);
  showState(status.ready ? "good" : "bad", status.ready ? "Ready" : `Not ready: ${status.reason}`);
  document.title = `${status.ready ? "" : "⚠ "}${status.workers_ready}/${status.workers_wanted} ${status.target}`;
  text($("tally"), `${status.workers_ready} of ${status.workers_wanted} serve`);
}

function showState(tone, words) {
  $("state").dataset.tone = tone;
  if ($("state-text").textContent !== words) {
    if (tone !== "quiet") announce(words);
    $("state-text").textContent = words;
  }
}

function showFacts(status) {
  const sum = (name) => status.workers.reduce((all, worker) => all + (worker[name] ?? 0), 0);
  const facts = [
    ["In flight", round(sum("active"))],
    ["Connections", round(sum("connections"))],
    ["WebSockets", round(sum("websockets"))],
  ];
  for (const each of status.listeners) {
    const where = status.listeners.length > 1 ? ` at ${each.name}` : "";
    facts.push([`Waiting to be accepted${where}`, each.queue === null ? "–" : `${each.queue} of ${each.backlog}`]);
  }
  for (const each of status.certificates) {
    facts.push([`Certificate ${each.file.split("/").pop()}`, each.days === null ? "cannot be read" : count(Math.floor(each.days), "day")]);
  }
  for (const each of status.under_way) facts.push(["Under way", `${each.kind} for ${span(each.seconds)}`]);
  facts.push(["Last reload", status.last_reload ? status.last_reload.message : "none yet", "wide"]);
  const before = $("facts").children;
  if (before.length !== facts.length) {
    $("facts").replaceChildren(...facts.map(() => element("div", {}, element("dt"), element("dd"))));
  }
  facts.forEach(([name, value, wide], i) => {
    before[i].className = wide ?? "";
    text(before[i].firstChild, name);
    text(before[i].lastChild, value);
  });
}

// ── workers ──────────────────────────────────────────────────────────────────────────────────

const blocked = (worker) => worker.silent > 1;
const look = (worker) => (blocked(worker) ? "blocked" : worker.phase);

function ratesOf(status) {
  for (const worker of status.workers) {
    const before = data.rates.get(worker.serial);
    if (before && status.uptime > before.at) {
      before.rate = Math.max(0, (worker.requests ?? 0) - before.requests) / (status.uptime - before.at);
    }
    data.rates.set(worker.serial, { rate: before?.rate ?? 0, requests: worker.requests ?? 0, at: status.uptime });
  }
  const there = new Set(status.workers.map((worker) => worker.serial));
  for (const serial of data.rates.keys()) if (!there.has(serial)) data.rates.delete(serial);
}

function showWorkers(status) {
  const rows = $("rows");
  const known = new Map([...rows.children].map((row) => [row.dataset.serial, row]));
  const tiles = new Map([...$("tiles").children].map((tile) => [tile.dataset.serial, tile]));
  status.workers.forEach((worker, place) => {
    const serial = String(worker.serial);
    const row = known.get(serial) ?? newRow(serial);
    const tile = tiles.get(serial) ?? element("div", { "data-serial": serial }, element("i"), element("b"), element("small"));
    fillRow(row, worker);
    fillTile(tile, worker);
    if (rows.children[place] !== row) rows.insertBefore(row, rows.children[place] ?? null);
    if ($("tiles").children[place] !== tile) $("tiles").insertBefore(tile, $("tiles").children[place] ?? null);
    known.delete(serial);
    tiles.delete(serial);
  });
  for (const gone of [...known.values(), ...tiles.values()]) gone.remove();
}

const COLUMNS = ["Slot", "Phase", "Age", "CPU", "Requests/s", "In flight", "Connections", "Lag", "Memory", "Next recycle"];

function newRow(serial) {
  const row = element("tr", { role: "row", "data-serial": serial });
  COLUMNS.forEach((label, i) => {
    const attributes = { role: i ? "cell" : "rowheader", "data-label": label };
    if (i > 3 && i < 9) attributes.class = "number";
    row.append(element("td", attributes));
  });
  row.children[1].append(element("span"), " ", element("small"));
  row.children[3].append(element("span", { class: "load" }, element("i", { "aria-hidden": "true" }), element("span")));
  return row;
}

function fillRow(row, worker) {
  const cells = row.children;
  const there = worker.requests !== undefined;
  const phase = cells[1].firstChild;
  phase.className = `phase ${look(worker)}`;
  text(phase, blocked(worker) ? `blocked for ${span(worker.silent)}` : worker.phase);
  text(cells[1].lastChild, worker.waits_for ? `waits for ${worker.waits_for}` : `gen. ${worker.generation}, pid ${worker.pid ?? "–"}`);
  text(cells[0], String(worker.slot));
  text(cells[2], span(worker.age));
  cells[3].querySelector("i").style.setProperty("--share", Math.min(1, worker.cpu ?? 0));
  text(cells[3].querySelector("span span"), there ? `${round(worker.cpu * 100)} %` : "–");
  text(cells[4], there ? rate(data.rates.get(worker.serial)?.rate ?? 0) : "–");
  text(cells[5], there ? round(worker.active) : "–");
  text(cells[6], there ? round(worker.connections) : "–");
  cells[6].title = Object.entries(worker.clients ?? {}).map(([awaited, clients]) => `${clients} owe ${awaited}`).join("\n");
  text(cells[7], there ? seconds(worker.loop_lag) : "–");
  text(cells[8], there ? bytes(worker.memory) : "–");
  text(cells[9], there ? recycle(worker.next_recycle) : "–");
}

function recycle(limits) {
  const words = {
    max_requests: (left) => `after ${count(left, "request")}`,
    max_lifetime: (left) => `in ${span(left)}`,
    max_memory: (left) => `${bytes(left)} from max_memory`,
  };
  return limits.map(({ why, left }) => words[why]?.(left) ?? why).join(", ") || "never";
}

function fillTile(tile, worker) {
  tile.className = `tile ${look(worker)}`;
  tile.title = `worker ${worker.slot}: ${look(worker)}`;
  tile.children[0].style.height = `${Math.min(100, Math.round((worker.cpu ?? 0) * 100))}%`;
  text(tile.children[1], String(worker.slot));
  text(tile.children[2], span(worker.age).split(" ").slice(0, 2).join(" "));
}

// ── time line ────────────────────────────────────────────────────────────────────────────────

const KINDS = { death: "death", reload: "reload", recycle: "recycle", other: "other" };
const EVENTS = {
  "worker.died": "death", "worker.boot_failed": "death", "worker.hung": "death", "worker.breached": "death",
  "zygote.died": "death", "zygote.failed": "death", "admin.died": "death", "worker.overdue": "death",
  "reload.begins": "reload", "reload.ends": "reload", "upgrade.begins": "reload", "upgrade.ends": "reload",
  "generation.serves": "reload", "code.changed": "reload", "scale.begins": "reload", "scale.ends": "reload",
  "worker.recycle": "recycle",
  "server.ready": "other", "server.stops": "other", "logs.reopened": "other", "listener.changed": "other",
};
const kindOf = (record) => EVENTS[record.event];

function showEvent(record) {
  const kind = kindOf(record);
  if (!kind) return;
  const time = element("time", { datetime: record.time }, clock(record.at));
  const item = element("li", { class: `kind-${kind}` }, element("i", { "aria-hidden": "true" }), time);
  item.append(element("span", {}, element("span", { class: "hidden" }, `${KINDS[kind]}: `), record.message));
  $("events").prepend(item);
  while ($("events").children.length > MOST_EVENTS) $("events").lastChild.remove();
  $("no-events").hidden = true;
}

function drawStrip() {
  const svg = $("strip");
  const { width, height } = svg.getBoundingClientRect();
  if (!width) return;
  const { from, to } = scale();
  const x = (at) => 6 + ((at - from) / (to - from)) * (width - 12);
  const line = 16;
  const parts = [node("line", { class: "grid", x1: 0, x2: width, y1: line, y2: line, "stroke-width": 2 })];
  for (const record of data.records) {
    const kind = kindOf(record);
    if (!kind || record.at < from) continue;
    const at = { class: `kind-${kind}`, fill: "currentcolor" };
    const mark = kind === "death" ? node("path", { ...at, d: `M${x(record.at)} 7l8 9-8 9-8-9z` })
      : kind === "reload" ? node("rect", { ...at, x: x(record.at) - 6, y: line - 6, width: 12, height: 12, rx: 3 })
      : node("circle", { ...at, cx: x(record.at), cy: line, r: 5 });
    mark.append(node("title", {}, `${clock(record.at)} ${record.message}`));
    parts.push(mark);
  }
  parts.push(...axis(width, height, to - from));
  svg.replaceChildren(...parts);
}

// ── what comes ───────────────────────────────────────────────────────────────────────────────

function show() {
  if (paused || !data.status) return;
  showServer(data.status);
  showFacts(data.status);
  showWorkers(data.status);
  drawCharts();
  drawStrip();
}

function keepSample(sample) {
  data.samples.push(sample);
  const old = data.samples.findIndex((s) => s.at >= sample.at - LONGEST);
  if (old > 0) data.samples.splice(0, old);
}

function keepRecord(record) {
  record.at = Date.parse(record.time) / 1000;
  data.records.push(record);
  if (data.records.length > 1000) data.records.shift();
  showEvent(record);
}

function begin(told) {
  const last = data.samples.length ? data.samples[data.samples.length - 1].at : 0;
  told.samples.filter((sample) => sample.at > last).forEach(keepSample);
  const number = data.records.length ? data.records[data.records.length - 1].number : 0;
  const again = told.records.length && told.records[told.records.length - 1].number < number; // another server
  if (again) [data.records, data.samples] = [[], told.samples];
  if (again) $("events").replaceChildren();
  told.records.filter((record) => again || record.number > number).forEach(keepRecord);
  data.status = told.status;
  show();
}

function listen() {
  const source = new EventSource("events");
  source.addEventListener("begin", (event) => begin(JSON.parse(event.data)));
  source.addEventListener("tick", (event) => {
    const { status, sample } = JSON.parse(event.data);
    data.status = status;
    keepSample(sample);
    ratesOf(status);
    show();
  });
  source.addEventListener("record", (event) => {
    const record = JSON.parse(event.data);
    keepRecord(record);
    if (kindOf(record) === "death" || record.event === "reload.ends") announce(record.message);
  });
  source.addEventListener("error", () => {
    showState("quiet", "No answer; trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  text($("pause"), paused ? "Paused" : "Pause");
  show();
});

for (const id of Object.keys(CHARTS)) {
  const svg = $(id).querySelector("svg");
  const move = (at) => {
    cursor = at;
    drawCharts();
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const { from, to } = scale();
    move(from + ((event.clientX - box.left) / box.width) * (to - from));
  });
  svg.addEventListener("pointerleave", () => move(null));
  svg.addEventListener("blur", () => move(null));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
    if (event.key === "Escape") move(null);
    if (!step || !data.samples.length) return;
    event.preventDefault();
    const { from, to } = scale();
    move(Math.min(to, Math.max(from, (cursor ?? to) + step)));
    announce(svg.getAttribute("aria-label"));
  });
}

$("kinds").replaceChildren(...Object.entries(KINDS).map(([kind, word]) => element("li", { class: `kind-${kind}` }, element("i"), word)));
new ResizeObserver(() => show()).observe(document.body);
listen();
