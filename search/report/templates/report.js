// Embeds the charts, filters their rows, and shows the table behind each. The data is in the element #data.

const page = JSON.parse(document.getElementById("data").textContent);
const MAX_ROWS = 500;
const ROWS = "rows";
const narrow = () => window.innerWidth < 640;

// Rows as objects; those of a trial also have its attributes.
const trials = {};
for (const [name, filter] of Object.entries(page.filters)) {
  trials[name] = new Map(objects(filter.trials).map((row) => [row.trial, row]));
}
for (const chart of Object.values(page.charts)) {
  const known = trials[chart.filtered];
  chart.objects = objects(chart).map((row) => ({ ...(known && known.get(row.trial)), ...row }));
  chart.fields = [...new Set([...chart.columns, ...(known ? page.filters[chart.filtered].trials.columns : [])])];
}

function objects({ columns, rows }) {
  return rows.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index]])));
}

// --- filters -------------------------------------------------------------------------------------------------------

const shown = {}; // numbers of the trials that a filter lets through, by its name

function visible(chart) {
  const set = shown[chart.filtered];
  return set ? chart.objects.filter((row) => set.has(row.trial)) : chart.objects;
}

// Vega adds a key of its own to each row.
function copies(chart) {
  return visible(chart).map((row) => ({ ...row }));
}

async function apply(form) {
  const name = form.dataset.filter;
  const { params } = page.filters[name];
  const value = (field) => (form.elements[field] ? form.elements[field].value : "");
  const outcomes = new Set([...form.querySelectorAll("[name=outcome]:checked")].map((box) => box.value));
  const [low, high] = ["low", "high"].map((field) => (value(field) === "" ? null : Number(value(field))));
  const parameter = params.columns.indexOf(value("parameter"));
  const settings = new Map(params.rows.map(([trial, ...values]) => [trial, values]));
  shown[name] = new Set();
  for (const trial of trials[name].values()) {
    const setting = parameter < 1 ? trial.score : (settings.get(trial.trial) || [])[parameter - 1];
    const inRange = value("choice") !== ""
      ? setting !== null && String(setting) === value("choice")
      : (low === null && high === null) ||
        (setting !== null && setting !== undefined && (low === null || setting >= low) && (high === null || setting <= high));
    if (
      outcomes.has(trial.outcome) && inRange &&
      (value("source") === "" || trial.source.startsWith(value("source"))) &&
      (value("family") === "" || trial.family === value("family"))
    ) shown[name].add(trial.trial);
  }
  form.elements.count.value = `${shown[name].size} of ${trials[name].size} trials`;
  form.setAttribute("aria-busy", "true");
  await Promise.all(Object.values(page.charts).filter((chart) => chart.filtered === name).map(refresh));
  form.setAttribute("aria-busy", "false");
}

function prepareParameter(form) {
  const { params } = page.filters[form.dataset.filter];
  const index = params.columns.indexOf(form.elements.parameter.value);
  const found = index < 1 ? [] : params.rows.map((row) => row[index]).filter((value) => value !== null);
  const isChoice = found.some((value) => typeof value === "string");
  const choices = isChoice ? [...new Set(found.map(String))].sort() : [];
  const options = [["any", ""], ...choices.map((choice) => [choice, choice])];
  form.elements.choice.replaceChildren(...options.map(([text, value]) => new Option(text, value)));
  for (const [field, hidden] of [["choice", !isChoice], ["low", isChoice], ["high", isChoice]]) {
    form.elements[field].value = "";
    form.elements[field].closest("label").hidden = hidden;
  }
}

for (const form of document.querySelectorAll("form.filter")) {
  form.hidden = false;
  prepareParameter(form);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "parameter") prepareParameter(form);
    apply(form);
  });
  form.addEventListener("reset", () => setTimeout(() => { prepareParameter(form); apply(form); }));
}

async function refresh(chart) {
  if (chart.view) await chart.view.data(ROWS, copies(chart)).runAsync();
  if (chart.details && chart.details.open) fill(chart);
}

// --- charts --------------------------------------------------------------------------------------------------------

// Vega rounds the only tick of an axis whose values are all the same, such as 0.711 to 1.
function exact(scale) {
  return `domain('${scale}')[0] === domain('${scale}')[1] ? format(datum.value, '~g') : datum.label`;
}

function config() {
  const text = { labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, labelColor: "var(--soft)", titleColor: "var(--ink)" };
  return {
    background: null,
    font: "system-ui, sans-serif",
    mark: { aria: false },
    view: { stroke: null },
    axisX: { grid: false, tickCount: narrow() ? 4 : 8, labelExpr: exact("x") },
    axisY: { labelExpr: exact("y") },
    axis: { ...text, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)", titlePadding: 8, labelOverlap: "greedy", labelSeparation: 6 },
    legend: { ...text, orient: "top", direction: "horizontal", columns: narrow() ? 3 : 0, offset: 6, symbolStrokeWidth: 2, symbolOpacity: 1, titleLimit: 300 },
  };
}

async function draw(figure, chart) {
  const choice = figure.querySelector(".choice select");
  const spec = structuredClone(chart.views[choice ? choice.value : ""]);
  spec.data = { name: ROWS, values: copies(chart) };
  spec.description = `${chart.title}. ${chart.text}`;
  if (chart.view) chart.view.finalize();
  const options = {
    actions: false, ast: true, renderer: "svg", config: config(),
    tooltip: { disableDefaultStyle: true, theme: "custom" },
  };
  chart.view = (await vegaEmbed(figure.querySelector(".drawing"), spec, options)).view;
}

// An interval bound to scales keeps the domain of each field in a signal, such as zoom_epoch.
function zoom(chart, how) {
  for (const { field, channel } of chart.view.signal("zoom_tuple_fields")) {
    const scale = chart.view.scale(channel);
    const isLog = scale.type === "log";
    const [low, high] = scale.domain().map((end) => (isLog ? Math.log(end) : end));
    const half = ((high - low) / 2) * (how === "in" ? 0.7 : 1 / 0.7);
    const ends = [(low + high) / 2 - half, (low + high) / 2 + half];
    chart.view.signal(`zoom_${field}`, how === "reset" ? null : isLog ? ends.map(Math.exp) : ends);
  }
  return chart.view.runAsync();
}

// --- tables --------------------------------------------------------------------------------------------------------

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function cellText(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value);
}

function fill(chart) {
  const rows = visible(chart);
  const table = element("table");
  const cut = rows.length > MAX_ROWS ? `the first ${MAX_ROWS} of ${rows.length} rows; the CSV has all` : `${rows.length} rows`;
  table.append(element("caption", `${chart.title}: ${cut}`));
  const head = table.createTHead().insertRow();
  for (const field of chart.fields) head.append(element("th", field, { scope: "col" }));
  const body = table.createTBody();
  for (const row of rows.slice(0, MAX_ROWS)) {
    const line = body.insertRow();
    for (const field of chart.fields) line.append(element("td", cellText(row[field])));
  }
  const save = element("button", "Download as CSV", { type: "button" });
  save.addEventListener("click", () => download(chart));
  const box = chart.details.querySelector(".rows");
  box.setAttribute("tabindex", "0");
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", `Table of ${chart.title}`);
  box.replaceChildren(save, table);
}

function csv(chart) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [chart.fields, ...visible(chart).map((row) => chart.fields.map((field) => row[field]))];
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function download(chart) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([csv(chart)], { type: "text/csv" }));
  link.download = `${chart.key}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// --- start ---------------------------------------------------------------------------------------------------------

const figures = [...document.querySelectorAll("figure[data-chart]")];
for (const figure of figures) {
  const chart = page.charts[figure.dataset.chart];
  chart.key = figure.dataset.chart;
  chart.details = figure.querySelector("details.table");
  chart.details.addEventListener("toggle", () => chart.details.open && fill(chart));
  const choice = figure.querySelector(".choice select");
  if (choice) choice.addEventListener("change", () => draw(figure, chart));
  for (const button of figure.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => zoom(chart, button.dataset.zoom));
  }
}
for (const form of document.querySelectorAll("form.filter")) apply(form);
for (const figure of figures) {
  await draw(figure, page.charts[figure.dataset.chart]);
  await new Promise((next) => setTimeout(next)); // the page stays responsive between charts
}
document.documentElement.dataset.ready = "true";
