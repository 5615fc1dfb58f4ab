"use strict";
// The page talks to the same HTTP interface as everyone else and holds no state of its own but the chosen model and,
// for this tab only, the access token. Streams are read with fetch, because EventSource cannot send a token.

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";
let model = decodeURIComponent(location.hash.slice(1));
let busy = false;

async function api(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = "Bearer " + token;
  const reply = await fetch(path, { ...options, headers });
  if (reply.status === 401 || reply.status === 403) $("token-form").hidden = false;
  if (!reply.ok) {
    const body = await reply.json().catch(() => ({}));
    throw new Error(body.error || `${reply.status} ${reply.statusText}`);
  }
  return reply.json();
}

const bytes = (n) => n == null ? "–" : n < 1e3 ? n + " B" : n < 1e6 ? (n / 1e3).toFixed(1) + " kB"
  : n < 1e9 ? (n / 1e6).toFixed(2) + " MB" : (n / 1e9).toFixed(2) + " GB";
const micros = (n) => n == null ? "–" : n < 1e3 ? n.toFixed(0) + " µs" : (n / 1e3).toFixed(2) + " ms";
const percent = (x) => x == null ? "–" : (100 * x).toFixed(2) + " %";

function el(tag, text, cls) {
  const e = document.createElement(tag);
  if (text != null) e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

function ratioCell(value, base, show) {
  const td = el("td", show(value), "n");
  if (value && base && value !== base) {
    const r = base / value;
    td.append(" ", el("small", r >= 1 ? r.toFixed(1) + "× less" : (1 / r).toFixed(1) + "× more", r >= 1 ? "better" : "worse"));
  }
  return td;
}

function differenceCell(paired) {
  if (!paired || paired.difference == null) return el("td", "–", "n");
  const points = 100 * paired.difference;
  const td = el("td", (points > 0 ? "+" : "") + points.toFixed(2) + " points", "n");
  if (paired.ci95) td.title = `95 %: ${(100 * paired.ci95[0]).toFixed(2)} to ${(100 * paired.ci95[1]).toFixed(2)} points`;
  if (paired.mcnemar_p != null && paired.mcnemar_p < 0.05) td.classList.add(points < 0 ? "worse" : "better");
  return td;
}

function variantRow(row, variant, base) {
  const tr = el("tr");
  tr.dataset.variant = row.variant;
  tr.append(el("td", row.variant), el("td", variant ? variant.state : "–"));
  const accuracy = el("td", row.labelled ? percent(row.labelled.accuracy) : "–", "n");
  if (row.labelled && row.labelled.ci95)
    accuracy.title = `95 %: ${percent(row.labelled.ci95[0])} to ${percent(row.labelled.ci95[1])} of ${row.labelled.n}`;
  tr.append(accuracy, differenceCell(row.paired));
  const p50 = (r) => r && r.latency ? r.latency.p50_us : null;
  tr.append(ratioCell(p50(row), p50(base), micros), el("td", row.latency ? micros(row.latency.p99_us) : "–", "n"));
  tr.append(ratioCell(row.bytes_file, base.bytes_file, bytes), ratioCell(row.bytes_resident, base.bytes_resident, bytes));
  tr.append(el("td", (row.verdicts || []).map((v) => v.replaceAll("_", " ")).join(", "), "verdict"));
  return tr;
}

async function showModel() {
  $("model").hidden = !model;
  if (!model) return;
  const path = "/api/v1/models/" + encodeURIComponent(model);
  const [detail, variants, comparison] = await Promise.all([
    api(path), api(path + "/variants?limit=1000"), api(path + "/comparison")]);
  const byName = Object.fromEntries(variants.items.map((v) => [v.name, v]));
  const base = comparison.variants.find((v) => v.variant === comparison.reference) || {};
  $("model-name").textContent = model;
  const facts = [detail.parameters != null ? detail.parameters.toLocaleString("en") + " parameters" : "",
    detail.macs != null ? (detail.macs / 1e6).toFixed(1) + " M multiply-adds" : "",
    (detail.inputs || []).map((i) => `${i.name} [${i.shape.join("×").replaceAll("-1", "?")}]`).join(", ")];
  $("model-facts").textContent = facts.filter(Boolean).join(" · ");
  $("variants").tBodies[0].replaceChildren(...comparison.variants.map((row) => variantRow(row, byName[row.variant], base)));
}

function showModels(names) {
  if (!names.includes(model)) model = names[0] || "";
  $("no-models").hidden = names.length > 0;
  $("models").replaceChildren(...names.map((name) => {
    const button = el("button", name);
    if (name === model) button.setAttribute("aria-current", "true");
    button.onclick = () => { model = name; location.hash = encodeURIComponent(name); clearAnswers(); refresh(); };
    const li = el("li");
    li.append(button);
    return li;
  }));
}

const duration = (s) => s < 100 ? Math.ceil(s) + " s" : s < 6000 ? Math.round(s / 60) + " min" : (s / 3600).toFixed(1) + " h";
const SVG = "http://www.w3.org/2000/svg", CHART = { width: 320, height: 80 };

// what a training tells of itself: a line each, on its own scale, and how its last figure is said
const CURVES = [
  { name: "loss", from: (v) => Math.min(...v), to: (v) => Math.max(...v), show: (x) => x.toFixed(4) },
  { name: "accuracy", from: () => 0, to: () => 1, show: percent },
  { name: "val_accuracy", from: () => 0, to: () => 1, show: percent },
];
const FIGURES = [
  { name: "images_per_second", show: (x) => x.toFixed(0) + " pictures/s" },
  { name: "learning_rate", show: (x) => "rate " + x.toPrecision(3) },
];

function curve(points, { name, from, to }, epochs) {
  const values = points.map((p) => p.value), low = from(values), range = to(values) - low || 1;
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("class", name);
  line.setAttribute("points", points.map((p) => [
    (p.epoch - epochs[0]) / (epochs[1] - epochs[0] || 1) * CHART.width,
    CHART.height - (p.value - low) / range * CHART.height].map((x) => x.toFixed(1)).join(",")).join(" "));
  return line;
}

function learningChart(metrics) {
  const known = (metrics || []).filter((m) => m.value != null);
  const curves = CURVES.map((c) => [known.filter((m) => m.name === c.name), c]).filter(([points]) => points.length > 0);
  if (curves.length === 0) return null;
  const all = curves.flatMap(([points]) => points.map((p) => p.epoch)), epochs = [Math.min(...all), Math.max(...all)];
  const figure = el("figure"), svg = document.createElementNS(SVG, "svg"), caption = el("figcaption");
  svg.setAttribute("viewBox", `0 0 ${CHART.width} ${CHART.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `loss and accuracy of epochs ${epochs[0]} to ${epochs[1]}`);
  svg.append(...curves.map(([points, c]) => curve(points, c, epochs)));
  const last = curves.map(([points, c]) => el("span", `${c.name.replaceAll("_", " ")} ${c.show(points[points.length - 1].value)}`, c.name));
  for (const f of FIGURES) {
    const points = known.filter((m) => m.name === f.name);
    if (points.length) last.push(el("span", f.show(points[points.length - 1].value)));
  }
  caption.append(...last);
  figure.append(svg, caption);
  return figure;
}

// what each layer bears: a table of layers and methods, coloured by damage on a logarithmic scale of eight steps
const HEAT = { steps: 8, least: 1e-5 };
const short = (x) => x == null ? "–" : x === 0 ? "0" : x < 1e-3 ? x.toExponential(1) : x.toPrecision(2);

function heatOf(damage, most) {
  if (!(damage > HEAT.least)) return 0;
  const range = Math.log(Math.max(most, HEAT.least * 10) / HEAT.least);
  return Math.min(HEAT.steps - 1, Math.floor(Math.log(damage / HEAT.least) / range * HEAT.steps));
}

function cellSaid(name, cell, result) {
  if (cell.reason) return `${name}: ${cell.reason}`;
  if (cell.unchanged) return `${name}: left as it was`;
  const said = [`${name}: damage ${short(cell.damage)}`];
  if (cell.agreement != null) said.push(`same answer ${percent(cell.agreement)}`);
  if (cell.accuracy_difference != null) said.push(`accuracy ${(100 * cell.accuracy_difference).toFixed(1)} points`);
  const classes = (cell.per_class || []).map((d, i) => [d, result.classes[i]]).sort((a, b) => b[0] - a[0]);
  if (classes.length) said.push(`worst class ${classes[0][1].class ?? classes[0][1].index} ${short(classes[0][0])}`);
  if (cell.worst && cell.worst.length) said.push(`worst sample ${cell.worst[0].index} ${short(cell.worst[0].damage)}`);
  return said.join(", ");
}

function heatCell(cells, result, most) {
  const td = el("td", "–", "n");
  if (!cells) return td;
  const { compressed, restored } = cells;
  td.textContent = compressed.reason ? "×" : compressed.unchanged ? "=" : short(compressed.damage);
  td.classList.add("heat" + heatOf(compressed.damage, most));
  td.title = cellSaid("only this layer compressed", compressed, result) + "\n" + cellSaid("all but this one", restored, result);
  return td;
}

function heatTable(result) {
  const all = result.layers.flatMap((row) => row.cells.map((c) => c.compressed.damage ?? 0));
  const most = Math.max(HEAT.least, ...all), table = el("table", null, "heat"), head = el("tr"), whole = el("tr");
  head.append(el("th", "Layer"), ...result.methods.map((m) => { const th = el("th", m.label, "n"); th.scope = "col"; return th; }));
  whole.append(el("th", "all layers"), ...result.methods.map((m) => {
    const td = el("td", short(m.all.damage), "n");
    td.title = cellSaid("all layers", m.all, result);
    return td;
  }));
  const rows = result.layers.map((row) => {
    const tr = el("tr"), th = el("th", row.id);
    tr.dataset.layer = row.id;
    th.scope = "row";
    tr.append(th, ...result.methods.map((_, i) => heatCell(row.cells.find((c) => c.method === i), result, most)));
    return tr;
  });
  table.createTHead().append(head);
  table.createTBody().append(whole, ...rows);
  const figure = el("figure"), wide = el("div", null, "wide"), caption = el("figcaption");
  wide.append(table);
  caption.append(...result.advice.map((a) => el("span", `${result.methods[a.method].label}: ${a.text}`)));
  figure.append(wide, caption);
  return figure;
}

const tables = new Map(); // by job, once they are there: a finished one does not change
function sensitivityTable(job) {
  const details = tables.get(job.id) || el("details");
  if (tables.has(job.id)) return details;
  details.append(el("summary", "what each layer bears"));
  tables.set(job.id, details);
  details.ontoggle = async () => {
    if (!details.open || details.querySelector("figure")) return;
    try {
      details.append(heatTable((await api("/api/v1/jobs/" + encodeURIComponent(job.id))).result));
    } catch (e) {
      details.append(el("p", e.message, "error"));
    }
  };
  return details;
}

function jobItem(job) {
  const li = el("li");
  li.dataset.job = job.id;
  const what = `${job.kind} ${job.model || ""}${job.variant ? " → " + job.variant : ""}`;
  li.append(el("strong", what), " ", el("span", job.state, job.state === "failed" ? "error" : ""));
  const p = job.progress || {};
  if (job.state === "running") {
    const bar = el("progress");
    bar.max = 1;
    if (p.fraction != null) bar.value = p.fraction;
    const eta = p.eta_seconds != null ? ` · ${duration(p.eta_seconds)} left` : "";
    li.append(bar, el("small", `step ${p.step ?? 0} of ${p.of ?? 1} · ${p.message || ""}${eta}`));
    const chart = learningChart(job.metrics);
    if (chart) li.append(chart);
  }
  if (job.error) li.append(el("p", job.error.message, "error"));
  if (job.kind === "sensitivity" && job.state === "succeeded") li.append(sensitivityTable(job));
  return li;
}

function showJobs(jobs) {
  $("no-jobs").hidden = jobs.length > 0;
  $("jobs").replaceChildren(...jobs.map(jobItem));
}

function showStatus(status) {
  const memory = status.memory || {};
  const parts = [status.version, memory.used_bytes != null ? `${bytes(memory.used_bytes)} of ${bytes(memory.budget_bytes)} memory` : "",
    (status.degraded || []).join(", ")];
  $("status").textContent = parts.filter(Boolean).join(" · ");
}

async function refresh() {
  if (busy) return;
  busy = true;
  try {
    const [status, models, jobs] = await Promise.all([api("/api/v1/status"), api("/v2/models"), api("/api/v1/jobs?limit=8")]);
    $("token-form").hidden = true;
    showStatus(status);
    showModels(models.models);
    showJobs(jobs.items);
    await showModel();
  } catch (e) {
    $("status").textContent = e.message;
  } finally {
    busy = false;
  }
}

function clearAnswers() {
  $("answers").hidden = $("preview").hidden = true;
  $("answer-error").textContent = "";
}

function answerRow(v) {
  const tr = el("tr");
  tr.dataset.variant = v.variant;
  if (v.error) {
    const td = el("td", v.error, "error");
    td.colSpan = 4;
    tr.append(el("td", v.variant), td);
    return tr;
  }
  const best = (v.classes || [])[0] || {};
  tr.append(el("td", v.variant), el("td", best.label ?? (best.index != null ? "class " + best.index : "–")),
    el("td", best.score != null ? percent(best.score) : "–", "n"), el("td", micros(v.timing_us ? v.timing_us.infer : null), "n"),
    el("td", v.top1_agrees == null ? "–" : v.top1_agrees ? "yes" : "no", v.top1_agrees === false ? "worse" : ""));
  return tr;
}

async function tryPicture(file) {
  if (!file || !model) return;
  clearAnswers();
  $("preview").src = URL.createObjectURL(file);
  $("preview").onload = () => URL.revokeObjectURL($("preview").src);
  $("preview").hidden = false;
  try {
    const reply = await api(`/api/v1/models/${encodeURIComponent(model)}/compare?outputs=false`, { method: "POST", body: file });
    $("answers").tBodies[0].replaceChildren(...reply.variants.map(answerRow));
    $("answers").hidden = false;
  } catch (e) {
    $("answer-error").textContent = e.message;
  }
}

const drop = $("drop");
drop.ondragover = (e) => { e.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (e) => { e.preventDefault(); drop.classList.remove("over"); tryPicture(e.dataTransfer.files[0]); };
$("file").onchange = (e) => tryPicture(e.target.files[0]);
$("token-form").onsubmit = (e) => {
  e.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  refresh();
};
for (const e of document.querySelectorAll(".origin")) e.textContent = location.origin;
refresh();
// jobs move each second while one runs; a quiet daemon is asked every five
setInterval(() => { if (!document.hidden && document.querySelector("#jobs progress")) refresh(); }, 1000);
setInterval(() => { if (!document.hidden) refresh(); }, 5000);
