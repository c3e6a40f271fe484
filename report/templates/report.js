"use strict";
// Everything works on what the page already says: tables get buttons, figures are drawn from the JSON in #data.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const rows = new Map(data.rows.map(row => [row.name, row]));
const colour = name => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");  // Plotly reads a little HTML
const label = row => plain(row.number === null ? row.name : `${row.number} ${row.name}`);
const points = (value, digits = 2) => value === null ? "–"
  : (value < 0 ? "−" : value > 0 ? "+" : "") + Math.abs(value).toFixed(digits);
const range = pair => pair ? `[${points(pair[0])}, ${points(pair[1])}]` : "–";
const anchor = run => `run-${run.row}-${run.seed}`;
let printing = false;

// ---- what is hovered over -------------------------------------------------------------------------------------
const difference = new Map(data.differences.map(one => [one.row, one]));
function aboutRow(row) {
  const one = difference.get(row.name);
  const spread = row.std === null ? "" : ` ± ${row.std.toFixed(2)}`;
  return `<b>${label(row)}</b><br>top-1 ${row.top1.toFixed(2)}${spread}, seeds ${row.seeds.join(", ")}`
    + (one ? `<br>${aboutDifference(one)}` : "");
}
function aboutDifference(one) {
  const intervals = one.new ? `<br>95 %, new seeds on these images ${range(one.these)}`
    + `<br>95 %, new seeds on new images ${range(one.new)}` : `<br>95 %, these runs on new images ${range(one.runs)}`;
  return `${points(one.points)} from ${plain(one.after)}: ${plain(one.words)}${intervals}`;
}
const aboutRun = run => `<b>${plain(run.row)}/seed-${run.seed}</b><br>top-1 ${run.top1.toFixed(2)}`
  + `<br>digest ${plain(run.digest)}<br>code ${plain(run.code)}<br>${plain(run.device)}`;
const aboutCosts = of => data.costs.map(cost => of.costs[cost.name] === null ? ""
  : `<br>${plain(cost.title)} ${+of.costs[cost.name].toPrecision(3)}`).join("");

// ---- figures: each gives traces and a layout -------------------------------------------------------------------
const shown = () => document.getElementById("points").value;
const hue = row => row.colour || colour("ink");
const marker = list => ({ size: 10, color: list.map(row => row.off_path ? colour("paper") : hue(row)),
  symbol: list.map(row => row.reference ? "star" : row.off_path ? "diamond" : "circle"),
  line: { width: 2, color: list.map(hue) } });
const dots = (list, x, y, text, to, more = {}) => ({ type: "scatter", mode: "markers", x, y, text, hoverinfo: "text",
  customdata: to, marker: marker(list), showlegend: false, ...more });

const draw = {
  steps() {
    const axis = { categoryorder: "array", categoryarray: data.rows.map(label).reverse(), automargin: true };
    const trace = shown() === "seeds"
      ? dots(data.runs.map(run => rows.get(run.row)), data.runs.map(run => run.top1),
        data.runs.map(run => label(rows.get(run.row))), data.runs.map(aboutRun), data.runs.map(anchor))
      : dots(data.rows, data.rows.map(row => row.top1), data.rows.map(label), data.rows.map(aboutRow),
        data.rows.map(row => `runs-${row.name}`), { error_x: { type: "data", array: data.rows.map(row => row.std || 0),
          color: colour("soft"), thickness: 1.2, width: 3 } });
    return [[trace], { xaxis: { title: { text: "top-1 accuracy (%)" } }, yaxis: axis, height: 110 + 26 * data.rows.length }];
  },
  accuracy_vs_gflops() {
    const cost = data.costs.find(one => one.name === document.getElementById("cost").value);
    const path = data.rows.filter(row => row.number !== null);
    const at = row => row.costs[cost.name];
    const front = data.rows.filter(row => row.front.includes(cost.name)).sort((a, b) => at(a) - at(b));
    const line = (list, name, style, more) => ({ type: "scatter", mode: "lines", x: list.map(at), y: list.map(r => r.top1),
      name, line: { width: 1.5, color: colour("soft"), ...style }, hoverinfo: "skip", ...more });
    const list = shown() === "seeds" ? data.runs.map(run => rows.get(run.row)) : data.rows;
    const trace = shown() === "seeds"
      ? dots(list, data.runs.map(at), data.runs.map(run => run.top1), data.runs.map(run => aboutRun(run) + aboutCosts(run)),
        data.runs.map(anchor))
      : dots(list, list.map(at), list.map(row => row.top1), list.map(row => aboutRow(row) + aboutCosts(row)),
        list.map(row => `runs-${row.name}`), { error_y: { type: "data", array: list.map(row => row.std || 0),
          color: colour("soft"), thickness: 1.2, width: 3 } });
    const names = { type: "scatter", mode: "text", x: data.rows.map(at), y: data.rows.map(row => row.top1),
      text: data.rows.map(row => `\u00a0\u00a0${row.number === null ? plain(row.name) : row.number}`), textposition: "top right",
      textfont: { size: 11, color: colour("soft") }, hoverinfo: "skip", showlegend: false };
    return [[line(front, "Pareto front", { shape: "hv", width: 3, color: colour("grid") }),
      line(path, "path", { dash: "dot" }), trace, ...(shown() === "seeds" ? [] : [names])],
    { xaxis: { title: { text: plain(cost.title) } }, yaxis: { title: { text: "top-1 accuracy (%)" } }, height: 520,
      legend: { orientation: "h", y: 1.08 } }];
  },
  differences() {
    const list = data.differences.map(one => ({ ...rows.get(one.row), ...one, name: one.row }));
    const names = list.map(label);
    const text = list.map(one => `<b>${label(one)}</b><br>${aboutDifference(one)}<br>paper ${points(one.paper)}`);
    const outer = one => one.new || one.runs;
    const bar = (of, width, name) => ({ type: "scatter", mode: "lines", name, hoverinfo: "skip",
      line: { width, color: colour("soft") }, x: list.flatMap(one => of(one) ? [...of(one), null] : [null, null, null]),
      y: names.flatMap(name => [name, name, null]) });
    const mark = dots(list, list.map(one => one.points), names, text, list.map(one => `runs-${one.row}`),
      { showlegend: true, name: "here; filled: a gain or a loss" });
    mark.marker.color = list.map(one => one.clear ? hue(one) : colour("paper"));
    const paper = { type: "scatter", mode: "markers", x: list.map(one => one.paper), y: names, text, hoverinfo: "text",
      name: "paper (ImageNet-1K)", marker: { symbol: "diamond", size: 8, color: colour("ink") } };
    const seeded = list.some(one => one.new);
    return [[bar(outer, 1.5, seeded ? "95 %, new images" : "95 %, these runs"), ...(seeded ? [bar(o => o.these, 5, "95 %, these images")] : []),
      mark, paper], { xaxis: { title: { text: "difference in top-1 (points)" }, zeroline: true, zerolinecolor: colour("soft") },
      yaxis: { categoryorder: "array", categoryarray: [...names].reverse(), automargin: true }, height: 150 + 26 * list.length,
      legend: { orientation: "h", y: 1, yanchor: "bottom" } }];
  },
  learning_curves() {
    const seen = new Set();
    const traces = data.curves.map(run => {
      const first = !seen.has(run.row); seen.add(run.row);
      const row = rows.get(run.row);
      return { type: "scatter", mode: run.epoch.length > 1 ? "lines" : "markers", x: run.epoch, y: run.top1,
        name: row ? label(row) : plain(run.row), legendgroup: run.row, showlegend: first,
        line: { width: 1.2, dash: run.done ? "solid" : "dot", color: row ? hue(row) : colour("soft") },
        hovertemplate: `<b>${plain(run.row)}/seed-${run.seed}</b><br>epoch %{x}: %{y:.2f} %<extra></extra>` };
    });
    return [traces, { xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "validation top-1 (%)" } },
      ...(root.clientWidth < 640 && !printing ? { legend: { orientation: "h", y: -0.2 }, height: 720 }
        // High enough for all names: paper does not scroll.
        : { legend: { tracegroupgap: 0 }, height: Math.min(1000, Math.max(480, 130 + 20 * seen.size)) }) }];
  },
  classes() {
    const { rows: names, columns, points: z, low, high } = data.classes;
    const reach = Math.max(...z.flat().map(Math.abs), 1);
    const text = z.map((line, i) => line.map((value, k) => `<b>${plain(names[i])}</b><br>${plain(columns[k])}: ${points(value, 1)}`
      + `<br>95 % (for all classes) [${points(low[i][k], 1)}, ${points(high[i][k], 1)}]`));
    return [[{ type: "heatmap", z, x: columns.map(plain), y: names.map(plain), text, hoverinfo: "text", xgap: 1, ygap: 1,
      zmin: -reach, zmax: reach, colorscale: [[0, "#a9373b"], [0.5, colour("shade")], [1, "#2369bd"]],
      colorbar: { title: { text: "points" }, thickness: 12, len: 0.9 } }],
    { yaxis: { autorange: "reversed", automargin: true, dtick: 1 }, xaxis: { tickangle: -90, automargin: true, dtick: 1 },
      height: 260 + 16 * names.length }];
  },
  confusion() {
    const { names, percent, step } = data.confusion;
    const text = percent.map((line, i) => line.map((value, k) =>
      `${plain(names[i])} taken for ${plain(names[k])}<br>by ${plain(step)}: ${value === null ? 0 : value} % of the class`));
    return [[{ type: "heatmap", z: percent, x: names.map(plain), y: names.map(plain), text, hoverinfo: "text", xgap: 1, ygap: 1,
      colorscale: [[0, colour("shade")], [1, "#c1440e"]], zmin: 0, colorbar: { title: { text: "%" }, thickness: 12, len: 0.9 } }],
    { yaxis: { autorange: "reversed", automargin: true, title: { text: "class" } }, height: Math.min(1000, 340 + 14 * names.length),
      xaxis: { tickangle: -90, automargin: true, title: { text: "taken for" } } }];
  },
  reliability() {
    const line = { type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], hoverinfo: "skip", showlegend: false,
      line: { dash: "dash", width: 1, color: colour("soft") } };
    const path = data.reliability.filter(one => rows.get(one.row) && rows.get(one.row).number !== null);
    const ends = new Set([path[0], path[path.length - 1]].filter(Boolean).map(one => one.row));
    const traces = data.reliability.map(one => ({ type: "scatter", mode: "lines+markers", name: plain(one.row),
      visible: ends.has(one.row) ? true : "legendonly", x: one.confidence, y: one.accuracy, line: { width: 1.5 },
      text: one.images.map(n => `<b>${plain(one.row)}</b><br>${Math.round(n)} images a seed`),
      hovertemplate: "%{text}<br>confidence %{x:.3f}, accuracy %{y:.3f}<extra></extra>" }));
    return [[line, ...traces], { xaxis: { title: { text: "confidence" }, range: [0, 1.02] }, height: 480,
      yaxis: { title: { text: "accuracy" }, range: [0, 1.02] }, ...(root.clientWidth < 640 && !printing ? { legend: { orientation: "h", y: -0.2 }, height: 640 } : {}) }];
  },
};

function render(plot) {
  const [traces, layout] = draw[plot.dataset.figure]();
  const axis = { gridcolor: colour("grid"), linecolor: colour("soft"), zeroline: false };
  const narrow = root.clientWidth < 640 && !printing;
  return Plotly.react(plot, traces, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: narrow ? false : "zoom",
    font: { color: colour("ink"), family: "system-ui, sans-serif", size: narrow ? 10 : 12.5 },
    hoverlabel: { align: "left", bgcolor: colour("paper"), bordercolor: colour("soft"), font: { color: colour("ink") } },
    margin: { l: 55, r: 15, t: 30, b: 50 }, ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
    ...(printing ? { width: 660, autosize: false } : { autosize: true }),
  }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: plot.dataset.figure } });
}
const plots = [...document.querySelectorAll(".plot")];
const redraw = () => Promise.all(plots.map(render));

function figures() {
  const controls = document.querySelector("[data-figure=accuracy_vs_gflops]")?.previousElementSibling;
  if (controls) {
    const choice = Object.assign(document.createElement("select"), { id: "cost" });
    choice.append(...data.costs.map(cost => new Option(cost.title, cost.name)));
    const text = document.createElement("label");
    text.append("x axis ", choice);
    controls.append(text);
    choice.addEventListener("change", () => render(document.querySelector("[data-figure=accuracy_vs_gflops]")));
  }
  for (const plot of plots) {
    render(plot);
    plot.on("plotly_click", event => {
      const to = event.points[0].customdata;
      if (typeof to === "string" && document.getElementById(to)) location.hash = to;
    });
  }
}

// ---- tables ----------------------------------------------------------------------------------------------------
function number(text) {
  const found = /^[^\d−+-]*([−+-]?[\d,]*\.?\d+)/.exec(text);
  return found ? parseFloat(found[1].replace("−", "-").replace(/,/g, "")) : NaN;
}
function compare(a, b) {
  const [x, y] = [number(a), number(b)];
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;  // what has no number comes last
  return isNaN(x) ? a.localeCompare(b) : x - y || a.localeCompare(b);
}
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    head.scope = "col";
    const text = row => row.cells[place].textContent.trim();
    const numeric = [...body.rows].filter(row => /\d/.test(text(row)) && /^[\d−+\-–.,]/.test(text(row))).length * 2 > body.rows.length;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = numeric ? compare : (a, b) => a.localeCompare(b);
      const empty = row => ["–", ""].includes(text(row));
      body.append(...[...body.rows].sort((a, b) => empty(a) - empty(b) || (up ? 1 : -1) * order(text(a), text(b))));
    });
  });
}
function filterable(box, table, title) {
  const input = Object.assign(document.createElement("input"), { type: "search", size: 18 });
  const count = document.createElement("span");
  const line = Object.assign(document.createElement("label"), { className: "filter" });
  count.setAttribute("role", "status");
  line.append(`Filter: ${title} `, input, count);
  box.before(line);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const lines = [...table.tBodies[0].rows];
    for (const row of lines) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
    count.textContent = words.length ? `${lines.filter(row => !row.hidden).length} of ${lines.length}` : "";
  });
}
let title = document.title;
for (const part of document.querySelectorAll("h1, h2, h3, .wide")) {
  if (part.className !== "wide") { title = part.firstChild.textContent; continue; }
  const table = part.querySelector("table");
  part.setAttribute("aria-label", `Table: ${title}`);
  sortable(table);
  if (table.tBodies[0].rows.length > 8) filterable(part, table, title);
}

// ---- light and dark, print ---------------------------------------------------------------------------------------
const theme = document.getElementById("theme");
try { theme.value = localStorage.getItem("report-theme") || "auto"; } catch { /* a page from disk may have no storage */ }
function paint() {
  if (theme.value === "auto") delete root.dataset.theme; else root.dataset.theme = theme.value;
}
theme.addEventListener("change", () => {
  paint();
  try { localStorage.setItem("report-theme", theme.value); } catch { /* as above */ }
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
document.getElementById("points").addEventListener("change", redraw);
const print = matchMedia("print");
print.addEventListener("change", () => { printing = print.matches; redraw(); });
addEventListener("beforeprint", () => { printing = true; redraw(); });
addEventListener("afterprint", () => { printing = false; redraw(); });
paint();
figures();
