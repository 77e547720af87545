// Draws what Python measured; computes nothing but the beta explorer's effective numbers and weights.
"use strict";
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // ---- effective numbers and weights: the same float64 formulas as longtail.effective_number and class_weights

  function effectiveNumber(n, volume) {
    const gap = 1 / volume;
    if (gap === 0) return n;
    if (volume === 1) return n > 0 ? 1 : 0;
    const logBeta = volume < 2 ? Math.log((volume - 1) / volume) : Math.log1p(-gap);
    const exponent = n * logBeta;
    return exponent > -1e-17 ? n * (-logBeta / gap) : -Math.expm1(exponent) / gap;
  }

  function classWeights(counts, scheme, volume, normalize) {
    const size = counts.map((n) =>
      scheme === "none" ? 1 : scheme === "inverse" ? n : scheme === "inverse_sqrt" ? Math.sqrt(n) : effectiveNumber(n, volume));
    const filled = size.filter((_, i) => counts[i] > 0);
    const smallest = filled.reduce((a, b) => Math.min(a, b));
    const ratio = size.map((s, i) => (counts[i] > 0 ? smallest / s : 0));
    if (normalize === "none") return size.map((s, i) => (counts[i] > 0 ? 1 / s : 0));
    const top = counts.reduce((a, b) => Math.max(a, b));
    let above = 0, below = 0;
    counts.forEach((n, i) => {
      if (n <= 0) return;
      const share = normalize === "classes" ? 1 : n / top;
      above += share;
      below += share * ratio[i];
    });
    return ratio.map((r) => r * (above / below));
  }

  // ---- small helpers

  const plain = (x) => {
    if (x === null || x === undefined || Number.isNaN(x)) return "n/a";
    if (x === Infinity) return "∞";
    if (x !== 0 && (Math.abs(x) >= 1e9 || Math.abs(x) < 1e-4)) return x.toPrecision(4);
    return Number(x.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  };
  const whole = (x) => x.toLocaleString("en-US", { maximumFractionDigits: 3 });
  const percent = (x) => (x === null || x === undefined ? "n/a" : (100 * x).toFixed(1));
  const times100 = (x) => (x === null || x === undefined ? null : 100 * x);
  // Plotly reads a few tags in texts; names are shown as they are
  const inert = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%\u200b{");
  const make = (tag, properties = {}, children = []) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  const short = (text, length = 22) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

  // ---- looks

  const COLOURS = { effective: "#009E73", inverse: "#D55E00", inverse_sqrt: "#56B4E9" };
  const OTHERS = ["#E69F00", "#CC79A7", "#0072B2", "#8C6D31", "#7F7F7F"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const MARKERS = ["circle", "square", "diamond", "triangle-up"];
  const GROUPS = ["many", "medium", "few"];
  const GROUP_COLOURS = { many: "#0072B2", medium: "#E69F00", few: "#D55E00" };

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return { fg: read("--fg"), dim: read("--dim"), grid: read("--grid"), bg: read("--bg"), line: read("--line") };
  }

  function styles(set) {
    const losses = [...new Set(set.methods.map((m) => m.loss))];
    const schemes = [...new Set(set.methods.map((m) => m.weights))];
    const unnamed = schemes.filter((s) => s.split(" ")[0] !== "none" && !(s in COLOURS));
    return (i, look) => {
      const m = set.methods[i];
      const colour = m.weights.split(" ")[0] === "none" ? look.fg : COLOURS[m.weights] ?? OTHERS[unnamed.indexOf(m.weights) % OTHERS.length];
      const at = losses.indexOf(m.loss) % DASHES.length;
      return { colour, dash: DASHES[at], symbol: MARKERS[at] };
    };
  }

  function layout(look, changes = {}) {
    const axis = (more = {}) => ({
      gridcolor: look.grid, linecolor: look.line, zerolinecolor: look.line, automargin: true, ...more,
      title: more.title ? { text: more.title, standoff: 8 } : undefined,
    });
    const { xaxis, yaxis, ...rest } = changes;
    return {
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12, color: look.fg },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 10, t: 10, b: 10 }, height: 340,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "closest", hoverlabel: { align: "left" },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      xaxis: axis(xaxis), yaxis: axis(yaxis), ...rest,
    };
  }

  const CONFIG = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg" },
  };

  // ranks 1, 2, ...: names as ticks where they have room, a log axis where there are very many
  function classAxis(set) {
    const size = set.counts.length;
    if (size > 24) return { title: "class, head to tail (rank)", type: size > 1000 ? "log" : "linear" };
    return { title: "class, head to tail", tickvals: set.rank, ticktext: set.names.map((n) => inert(short(n, 14))), tickangle: size > 12 ? -60 : "auto" };
  }
  // thousands of classes: enough of them for a line, denser where a log axis spreads the head
  function pointsOf(size) {
    const all = [...Array(size).keys()];
    if (size <= 1500) return all;
    const chosen = new Set([0, size - 1]);
    for (let k = 0; k < 250; k += 1) chosen.add(Math.round((size - 1) * (k / 250))).add(Math.round(size ** (k / 250)) - 1);
    return all.filter((i) => chosen.has(i));
  }
  const pick = (set, values) => set.points.map((i) => values[i]);
  // what scatters from class to class is averaged up to the next point instead
  const average = (set, values) => (set.points.length === values.length ? values : set.points.map((i, k) => {
    const known = values.slice(i, set.points[k + 1] ?? values.length).filter((v) => v !== null);
    return known.length ? known.reduce((a, b) => a + b) / known.length : null;
  }));
  const averaged = (set, title) => (set.points.length === set.counts.length ? title : `${title}, mean of neighbours`);
  const mode = (set) => (set.counts.length > 60 ? "lines" : "lines+markers");
  // decades as ticks, and their 2 and 5 where there are few decades
  function log(title, values) {
    const known = values.filter((v) => v > 0);
    const wide = known.reduce((a, b) => Math.max(a, b)) / known.reduce((a, b) => Math.min(a, b));
    return { title, type: "log", dtick: wide < 300 ? "D2" : 1, exponentformat: "power", minexponent: 4 };
  }

  // ---- charts: (set, look) -> [traces, layout]

  const CHARTS = {
    counts(set, look) {
      const [many, few] = set.thresholds;
      const group = (n) => (n > many ? "many" : n < few ? "few" : "medium");
      const text = { many: `many-shot (> ${many})`, medium: `medium-shot (${few} to ${many})`, few: `few-shot (< ${few})` };
      const bars = set.counts.length <= 300;
      const traces = GROUPS.map((g) => {
        const at = set.points.filter((i) => group(set.counts[i]) === g).map((i) => i + 1);
        const y = at.map((r) => set.counts[r - 1] || null);
        const common = { x: at, y, name: text[g], text: at.map((r) => `${inert(set.names[r - 1])}: ${whole(set.counts[r - 1])}`), hoverinfo: "text" };
        return bars
          ? { ...common, type: "bar", textposition: "none", marker: { color: GROUP_COLOURS[g] } }
          : { ...common, type: "scatter", mode: "lines", line: { color: GROUP_COLOURS[g], width: 3, shape: "hv" } };
      }).filter((t) => t.x.length);
      return [traces, layout(look, { xaxis: classAxis(set), yaxis: log("training samples", set.counts), bargap: 0.15 })];
    },

    effective(set, look) {
      const line = (y, name, color, dash) => ({ x: pick(set, set.rank), y: pick(set, y).map((v) => v || null), name, type: "scatter", mode: mode(set),
        line: { color, dash, width: 2 }, text: set.points.map((i) => `${inert(set.names[i])}: ${plain(y[i])}`), hoverinfo: "text+name" });
      return [
        [line(set.counts, "samples n", look.dim, "dot"), line(set.effective, "effective number E", COLOURS.effective, "solid")],
        layout(look, { xaxis: classAxis(set), yaxis: log("samples", [...set.counts, ...set.effective]), uirevision: "keep" }),
      ];
    },

    weights(set, look) {
      const line = (y, name, color, dash, width = 1.5) => ({ x: pick(set, set.rank), y: pick(set, y).map((v) => v || null), name, type: "scatter",
        mode: width > 2 ? mode(set) : "lines", line: { color, dash, width }, text: set.points.map((i) => `${inert(set.names[i])}: ${plain(y[i])}`), hoverinfo: "text+name" });
      const usual = (scheme) => classWeights(set.counts, scheme, 1, set.scale);
      return [
        [
          line(usual("none"), "none", look.fg, "dot"),
          line(usual("inverse"), "1/n", COLOURS.inverse, "dash"),
          line(usual("inverse_sqrt"), "1/√n", COLOURS.inverse_sqrt, "dashdot"),
          line(set.weights, "effective, chosen N", COLOURS.effective, "solid", 3),
        ],
        layout(look, { xaxis: classAxis(set), yaxis: log("class weight", [...usual("inverse"), ...set.weights]), uirevision: "keep" }),
      ];
    },

    errors(set, look) {
      const style = styles(set), names = set.methods.map((m) => inert(m.name));
      const traces = [
        { x: set.methods.map((m) => times100(m.error.mean)), y: names, type: "scatter", mode: "markers", name: "mean ± sd",
          error_x: { type: "data", array: set.methods.map((m) => times100(m.error.sd) ?? 0), color: look.dim, thickness: 1.5 },
          marker: { size: 11, color: set.methods.map((_, i) => style(i, look).colour), symbol: set.methods.map((_, i) => style(i, look).symbol) },
          text: set.methods.map((m) => `${inert(m.name)}: ${percent(m.error.mean)}${m.error.sd === null ? "" : ` ± ${percent(m.error.sd)}`} %`), hoverinfo: "text" },
        { x: set.methods.flatMap((m) => m.error.values.map(times100)), y: set.methods.flatMap((m) => m.error.values.map(() => inert(m.name))),
          type: "scatter", mode: "markers", name: "one seed", marker: { size: 5, symbol: "circle-open", color: look.fg, opacity: 0.6 },
          text: set.methods.flatMap((m) => m.error.values.map((v, k) => `seed ${m.error.seeds[k]}: ${percent(v)} %`)), hoverinfo: "text" },
      ];
      return [traces, layout(look, { height: 90 + 30 * names.length, xaxis: { title: "test error, %" }, yaxis: { autorange: "reversed", type: "category" } })];
    },

    differences(set, look) {
      const rows = set.methods.filter((m) => m.difference);
      if (!rows.length) return "n/a: no method has a run of the same loss without re-weighting beside it.";
      const d = rows.map((m) => m.difference);
      const half = (i, end) => (d[i][end] === null ? 0 : 100 * Math.abs(d[i][end] - d[i].mean));
      const traces = [{
        x: d.map((v) => 100 * v.mean), y: rows.map((m) => inert(m.name)), type: "scatter", mode: "markers",
        error_x: { type: "data", symmetric: false, array: d.map((_, i) => half(i, "high")), arrayminus: d.map((_, i) => half(i, "low")), color: look.dim, thickness: 2 },
        marker: { size: 11, color: d.map((v) => (v.better ? COLOURS.effective : look.fg)), symbol: d.map((v) => (v.better ? "circle" : "circle-open")), line: { width: 2 } },
        text: rows.map((m, i) => `${inert(m.name)}: ${(100 * d[i].mean).toFixed(1)} points, ${d[i].n} seeds${d[i].better ? ", significant after correction" : ""}`), hoverinfo: "text",
      }];
      const zero = { type: "line", x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper", line: { color: look.fg, width: 1, dash: "dot" } };
      return [traces, layout(look, { height: 90 + 34 * rows.length, shapes: [zero], xaxis: { title: "change of test error, points" }, yaxis: { autorange: "reversed", type: "category" } })];
    },

    groups(set, look) {
      const style = styles(set);
      const traces = shown(set).map((i) => {
        const m = set.methods[i], g = GROUPS.map((name) => m.groups[name]);
        return { x: GROUPS.map((name, k) => `${name}-shot${g[k] ? "" : ": n/a"}`), y: g.map((v) => (v ? 100 * v.mean : null)), name: inert(m.name), type: "bar",
          error_y: { type: "data", array: g.map((v) => (v ? times100(v.sd) ?? 0 : 0)), color: look.dim },
          marker: { color: style(i, look).colour, pattern: { shape: ["", "/", ".", "x"][DASHES.indexOf(style(i, look).dash)], bgcolor: style(i, look).colour, fgcolor: look.bg, solidity: 0.25 } },
          hovertemplate: "%{y:.1f} %<extra>%{fullData.name}</extra>" };
      });
      return [traces, layout(look, { barmode: "group", xaxis: { type: "category" }, yaxis: { title: "test error, %", rangemode: "tozero" } })];
    },

    classes(set, look) {
      const style = styles(set), traces = [];
      for (const i of shown(set)) {
        const m = set.methods[i];
        if (!m.classes) continue;
        const s = style(i, look), y = average(set, m.classes.mean).map(times100);
        if (m.classes.sd && set.counts.length <= 300) {
          const edge = (sign) => y.map((v, k) => (v === null ? null : Math.min(100, Math.max(0, v + sign * 100 * m.classes.sd[k]))));
          const band = { x: set.rank, type: "scatter", mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: m.name };
          traces.push({ ...band, y: edge(-1) }, { ...band, y: edge(1), fill: "tonexty", fillcolor: translucent(s.colour) });
        }
        traces.push({ x: pick(set, set.rank), y, name: inert(m.name), legendgroup: m.name, type: "scatter", mode: mode(set), connectgaps: false,
          line: { color: s.colour, dash: s.dash, width: 2 }, marker: { symbol: s.symbol, size: 7 },
          text: y.map((v, k) => `${inert(set.names[set.points[k]])} (n = ${whole(set.counts[set.points[k]])}): ${v === null ? "n/a" : v.toFixed(1) + " %"}`), hoverinfo: "text+name" });
      }
      if (!traces.length) return "The per-class errors of these methods are not in the page (too many classes times methods); choose the best or its baseline.";
      return [traces, layout(look, { height: 380, xaxis: classAxis(set), yaxis: { title: averaged(set, "test error, %"), range: [-2, 102] } })];
    },

    change(set, look) {
      const c = set.change, y = average(set, c.mean).map(times100);
      const half = (k, end) => (c[end][k] === null ? 0 : 100 * Math.abs(c[end][k] - c.mean[k]));
      const few = set.counts.length <= 300;
      const trace = { x: pick(set, set.rank), y, type: few ? "bar" : "scatter", mode: "lines", line: { color: "#0072B2", width: 1 },
        marker: { color: y.map((v) => (v <= 0 ? "#0072B2" : "#D55E00")) },
        text: y.map((v, k) => `${inert(set.names[set.points[k]])}: ${v === null ? "n/a" : `${v.toFixed(1)} points`}`), textposition: "none", hoverinfo: "text" };
      if (c.low) trace.error_y = { type: "data", symmetric: false, array: y.map((_, k) => half(k, "high")), arrayminus: y.map((_, k) => half(k, "low")), color: look.dim };
      return [[trace], layout(look, { xaxis: classAxis(set), yaxis: { title: averaged(set, "change of error, points") }, showlegend: false })];
    },

    reliability(set, look) {
      const style = styles(set);
      const traces = [{ x: [0, 1], y: [0, 1], type: "scatter", mode: "lines", line: { color: look.dim, dash: "dot" }, name: "as right as sure", hoverinfo: "skip" }];
      let missing = 0;
      for (const i of shown(set)) {
        const m = set.methods[i], s = style(i, look);
        if (!m.reliability) { missing += 1; continue; }
        traces.push({ x: m.reliability.map((b) => b[1]), y: m.reliability.map((b) => b[2]), name: inert(m.name), type: "scatter", mode: "lines+markers",
          line: { color: s.colour, dash: s.dash }, marker: { symbol: s.symbol, size: 7 },
          text: m.reliability.map((b) => `${whole(b[0])} samples: confidence ${percent(b[1])} %, accuracy ${percent(b[2])} %`), hoverinfo: "text+name" });
      }
      if (missing === shown(set).length) return "n/a for the methods shown.";
      return [traces, layout(look, { height: 380, xaxis: { title: "confidence", range: [0, 1.02] }, yaxis: { title: "accuracy", range: [0, 1.02] } })];
    },

    "curve-error": (set, look) => curve(set, look, "tested", "error", "test error, %", 100),
    "curve-loss": (set, look) => curve(set, look, "epochs", "loss", "training loss", 1),
    "matrix-best": (set, look) => matrix(set, look, set.matrix.best),
    "matrix-other": (set, look) => matrix(set, look, set.matrix.other),
  };

  function curve(set, look, at, what, title, factor) {
    const style = styles(set), traces = [];
    for (const i of shown(set)) {
      const m = set.methods[i], s = style(i, look);
      if (!m.curve || !m.curve[at].length) continue;
      traces.push({ x: m.curve[at], y: m.curve[what].map((v) => (v === null ? null : factor * v)), name: inert(m.name), type: "scatter",
        mode: m.curve[at].length > 40 ? "lines" : "lines+markers", line: { color: s.colour, dash: s.dash, width: 2 }, marker: { symbol: s.symbol, size: 6 } });
    }
    if (!traces.length) return "n/a: these runs kept no history.";
    return [traces, layout(look, { showlegend: true, xaxis: { title: "epoch" }, yaxis: { title, rangemode: factor === 100 ? "tozero" : "normal" } })];
  }

  function matrix(set, look, i) {
    const m = set.methods[i];
    if (!m || !m.matrix) return "n/a: the confusions of this method are not in the page.";
    const z = m.matrix.map((row) => { const n = row.reduce((a, b) => a + b, 0); return row.map((v) => (n ? (100 * v) / n : null)); });
    const size = z.length, labels = set.names.map((n) => inert(short(n, 12)));
    const axis = size <= 30 ? { tickvals: set.rank, ticktext: labels } : {};
    const trace = { z, x: set.rank, y: set.rank, type: "heatmap", colorscale: "Cividis", zmin: 0, zmax: 100, colorbar: { title: { text: "%" }, thickness: 12 },
      text: m.matrix.map((row, r) => row.map((v, c) => `true ${inert(set.names[r])}, taken for ${inert(set.names[c])}: ${v}`)), hoverinfo: "text", xgap: size <= 30 ? 1 : 0, ygap: size <= 30 ? 1 : 0 };
    const numbers = size <= 12 ? z.flatMap((row, r) => row.map((v, c) => ({ x: c + 1, y: r + 1, text: v === null ? "n/a" : v >= 0.5 ? v.toFixed(0) : "", showarrow: false, font: { size: 10, color: v > 55 ? "#000" : "#fff" } }))) : [];
    return [[trace], layout(look, { height: 440, annotations: numbers, xaxis: { title: "taken for", ...axis }, yaxis: { title: "true class", autorange: "reversed", ...axis } })];
  }

  function grid(paper, look) {
    // one column an imbalance factor, one row a loss and beta; published on the left, measured on the right
    const methods = [...new Set(paper.cells.map((c) => c.method))];
    const betas = [...new Set(paper.cells.map((c) => c.beta))].sort((a, b) => a - b);
    const factors = [...new Set(paper.cells.map((c) => c.imbalance))].sort((a, b) => b - a);
    const rows = methods.flatMap((m) => betas.map((b) => ({ m, b, label: `${m}, β=${b}` }))).filter((r) => paper.cells.some((c) => c.method === r.m && c.beta === r.b));
    const cell = (row, factor) => paper.cells.find((c) => c.method === row.m && c.beta === row.b && c.imbalance === factor);
    const traces = [], shapes = [], notes = [];
    const halves = paper.cells.some((c) => c.paper !== null) ? ["paper", "measured"] : ["measured"];
    halves.forEach((kind, half) => {
      const z = rows.map((r) => factors.map((f) => cell(r, f)?.[kind] ?? null));
      // colours compare within a column: from its lowest to its highest error
      const tint = z.map((row) => row.map((v, k) => {
        const column = z.map((other) => other[k]).filter((x) => x !== null);
        const low = Math.min(...column), high = Math.max(...column);
        return v === null ? null : high > low ? (v - low) / (high - low) : 0.5;
      }));
      const axis = half ? "2" : "";
      const absent = (row, factor) => (!cell(row, factor) ? "–" : kind === "paper" ? "not published" : "not run");
      traces.push({ z: tint, x: factors.map((_, k) => k), y: rows.map((_, k) => k), xaxis: `x${axis}`, yaxis: "y", type: "heatmap", colorscale: "Cividis", showscale: false, xgap: 2, ygap: 1,
        text: z.map((row, k) => row.map((v, c) => `${inert(rows[k].label)}, imbalance ${factors[c]}: ${v === null ? absent(rows[k], factors[c]) : v.toFixed(2) + " %"}`)), hoverinfo: "text" });
      z.forEach((row, k) => row.forEach((v, c) => {
        const column = z.map((other) => other[c]).filter((x) => x !== null);
        const best = v !== null && column.length > 1 && v === Math.min(...column);
        notes.push({ x: c, y: k, xref: `x${axis}`, yref: "y", showarrow: false, text: v === null ? absent(rows[k], factors[c]).replace("not published", "–") : best ? `<b>${v.toFixed(1)}</b>` : v.toFixed(1), font: { size: 10, color: v === null ? look.dim : tint[k][c] > 0.55 ? "#000" : "#fff" } });
        if (best) shapes.push({ type: "rect", xref: `x${axis}`, yref: "y", x0: c - 0.5, x1: c + 0.5, y0: k - 0.5, y1: k + 0.5, line: { color: "#D55E00", width: 3 } });
      }));
    });
    const fixed = { fixedrange: true, showgrid: false, showline: false, zeroline: false, tickangle: 0 };
    const ticks = { ...fixed, tickvals: factors.map((_, k) => k), ticktext: factors.map(String), side: "top", range: [-0.5, factors.length - 0.5] };
    const base = layout(look, { height: 90 + 19 * rows.length, shapes, annotations: notes, hovermode: "closest",
      xaxis: { ...ticks, domain: [0, halves.length > 1 ? 0.485 : 1], title: `${halves.length > 1 ? "published" : "measured"}, by imbalance` },
      yaxis: { ...fixed, tickvals: rows.map((_, k) => k), ticktext: rows.map((r) => inert(r.label)), range: [rows.length - 0.5, -0.5] } });
    if (halves.length > 1) base.xaxis2 = { ...base.xaxis, domain: [0.515, 1], title: { text: "measured, by imbalance", standoff: 8 } };
    return [traces, base];
  }

  const translucent = (colour) => {
    const hex = colour.replace("#", "");
    const [r, g, b] = [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16));
    return `rgba(${r},${g},${b},0.15)`;
  };
  const shown = (set) => [...set.visible].sort((a, b) => a - b);

  // ---- drawing: lazily, when a chart comes near the window

  const drawn = new Set();
  function draw(node) {
    drawn.add(node);
    const kind = node.dataset.chart, look = theme();
    const made = kind.startsWith("grid-") ? grid(DATA.paper[Number(kind.slice(5))], look) : CHARTS[kind](DATA.sets[node.dataset.set], look);
    if (typeof made === "string") {
      Plotly.purge(node);
      node.replaceChildren(make("p", { className: "dim", textContent: made }));
      node.style.minHeight = "0";
      return;
    }
    if (!node.classList.contains("js-plotly-plot")) node.replaceChildren();
    node.style.minHeight = `${made[1].height}px`;
    if (document.documentElement.classList.contains("printing")) made[1].width = node.clientWidth; // paper's, from the style
    Plotly.react(node, made[0], made[1], CONFIG);
  }
  const redraw = (id, kinds) => [...drawn].filter((n) => n.dataset.set === id && kinds.includes(n.dataset.chart)).forEach(draw);
  const redrawAll = () => [...drawn].forEach(draw);
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });

  // ---- tables

  function sortRows(table, column, direction) {
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const rows = [...table.tBodies[0].rows].map((row) => [row, key(row), row.cells[column].textContent]);
    const numeric = rows.some(([, v]) => v !== null);
    rows.sort(([, a, s], [, b, t]) => {
      if (!numeric) return direction * s.localeCompare(t, "en", { numeric: true });
      if (a === null || b === null) return (a === null) - (b === null); // n/a stays last
      return direction * (a - b);
    });
    table.tBodies[0].append(...rows.map(([row]) => row));
  }

  function sortable(headers, sort) {
    headers.forEach((th, column) => th.firstElementChild.addEventListener("click", () => {
      const direction = th.ariaSort === "ascending" ? -1 : 1;
      headers.forEach((other) => { other.ariaSort = "none"; });
      th.ariaSort = direction > 0 ? "ascending" : "descending";
      sort(column, direction);
    }));
  }

  const PAGE = 50;
  function classTable(box, set, id) {
    const [many, few] = set.thresholds;
    const best = set.methods[set.best], other = set.methods[set.other];
    const size = set.counts.length;
    const columns = [
      ["class", (i) => set.names[i]],
      ["training samples", (i) => set.counts[i], whole],
      ["group", (i) => (set.counts[i] > many ? "many" : set.counts[i] < few ? "few" : "medium")],
      ["effective number", (i) => set.effective[i], plain],
      ["weight", (i) => set.weights[i], plain],
    ];
    if (other?.classes) columns.push([`error %, ${other.name}`, (i) => other.classes.mean[i], percent]);
    if (best?.classes) columns.push([`error %, ${best.name}`, (i) => best.classes.mean[i], percent]);
    if (set.change) columns.push(["change, points", (i) => set.change.mean[i], (x) => (x === null ? "n/a" : (100 * x > 0 ? "+" : "") + (100 * x).toFixed(1))]);
    let order = [...set.rank.keys()], kept = order, page = 0;
    const body = make("tbody");
    const headers = columns.map(([name]) => { const th = make("th", { scope: "col" }, [make("button", { type: "button", textContent: name })]); th.ariaSort = "none"; return th; });
    const place = make("span", { className: "dim", ariaLive: "polite" });
    const [back, on] = [["‹ previous", -1], ["next ›", 1]].map(([textContent, step]) => make("button", { type: "button", textContent, onclick: () => { page += step; fill(); } }));
    const search = make("input", { type: "search", placeholder: "find a class", id: `${id}-find`, oninput: () => { page = 0; select(); } });
    function select() {
      const wanted = search.value.toLowerCase();
      kept = wanted ? order.filter((i) => set.names[i].toLowerCase().includes(wanted)) : order;
      fill();
    }
    function fill() {
      const pages = Math.max(1, Math.ceil(kept.length / PAGE));
      page = Math.min(Math.max(page, 0), pages - 1);
      body.replaceChildren(...kept.slice(page * PAGE, (page + 1) * PAGE).map((i) => make("tr", {}, columns.map(([, get, write]) =>
        make("td", { className: write ? "n" : "name", textContent: write ? write(get(i)) : get(i) })))));
      back.disabled = page === 0;
      on.disabled = page === pages - 1;
      place.textContent = `${whole(kept.length)} of ${whole(size)} classes, page ${page + 1} of ${whole(pages)}`;
    }
    sortable(headers, (column, direction) => {
      const get = columns[column][1], text = !columns[column][2];
      order = [...set.rank.keys()].map((i) => [i, get(i)]).sort(([, a], [, b]) => {
        if (text) return direction * a.localeCompare(b, "en", { numeric: true });
        if (a === null || b === null) return (a === null) - (b === null);
        return direction * (a - b);
      }).map(([i]) => i);
      page = 0;
      select();
    });
    const table = make("table", {}, [make("thead", {}, [make("tr", {}, headers)]), body]);
    const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "All classes" }, [table]);
    const find = make("label", { className: "hidden", htmlFor: `${id}-find`, textContent: "Find a class" });
    box.replaceChildren(make("div", { className: "pager" }, [find, search, back, on, place]), scroll);
    if (size <= PAGE) { back.hidden = on.hidden = true; }
    fill();
    return fill;
  }

  // ---- the beta explorer

  function explorer(form, set, id, refill) {
    const [slider, number, scale] = [$("input[type=range]", form), $("input[type=number]", form), $("select", form)];
    const [output, facts, warning, line] = [$("output", form), $(".facts", form), $(".warn", form), $(".line", form)];
    const filled = set.counts.filter((n) => n > 0);
    const high = filled.reduce((a, b) => Math.max(a, b)), low = filled.reduce((a, b) => Math.min(a, b));
    slider.max = Math.max(5, Math.ceil(Math.log10(high)) + 2);
    const start = 5 * Math.max(low, 1);
    const presets = [["β = 0", 1], ["β = 0.9", 10], ["β = 0.99", 100], ["β = 0.999", 1e3], ["β = 0.9999", 1e4], ["1/n (β = 1)", Infinity], [`5 × smallest: N = ${plain(start)}`, start]];
    const buttons = presets.map(([textContent, volume]) => make("button", { type: "button", textContent, onclick: () => choose(volume) }));
    $(".presets", form).append(...buttons);
    const head = set.counts.indexOf(high), tail = set.counts.lastIndexOf(low);
    let waiting = false;

    function choose(volume, from) {
      if (!(volume >= 1)) return; // an empty or half-written number changes nothing
      set.volume = volume;
      set.scale = scale.value;
      set.effective = set.counts.map((n) => effectiveNumber(n, volume));
      set.weights = classWeights(set.counts, "effective", volume, set.scale);
      const beta = volume === Infinity ? 1 : (volume - 1) / volume;
      const betaText = beta === 1 && volume !== Infinity ? "1 − " + (1 / volume).toPrecision(3) : String(Number(beta.toPrecision(10)));
      const size = volume === Infinity ? "∞" : whole(volume);
      if (from !== slider) slider.value = volume === Infinity ? slider.max : Math.log10(volume);
      if (from !== number) number.value = volume === Infinity ? "" : volume;
      output.textContent = `N = ${size}, β = ${betaText}`;
      slider.setAttribute("aria-valuetext", output.textContent);
      form.dataset.volume = volume;
      buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(presets[k][1] === volume)));
      const ratio = set.weights[tail] / set.weights[head];
      facts.textContent =
        `Most frequent class: ${set.names[head]}, n = ${whole(high)}, E = ${plain(set.effective[head])}, weight ${plain(set.weights[head])}. ` +
        `Rarest: ${set.names[tail]}, n = ${whole(low)}, E = ${plain(set.effective[tail])}, weight ${plain(set.weights[tail])}. ` +
        `The tail weighs ${plain(ratio)} times the head (1/n: ${plain(high / low)} times).`;
      const [top, bottom] = [set.effective[head], set.effective[tail]];
      let text = "";
      if (high <= 1.01 * low) text = "The classes are of one size: no choice changes anything.";
      else if (volume === 1) text = "β = 0 weighs all classes alike: no re-weighting.";
      else if (top <= 1.01 * bottom) text = `This choice does nothing: all effective numbers agree within 1 %. A volume matters from about N = ${plain(Math.max(low, 2))} upwards.`;
      else if (top >= 0.99 * high) text = "This choice equals 1/n (inverse class frequency) within 1 %: N lies far above the largest class.";
      warning.textContent = text;
      warning.hidden = !text;
      const scaled = set.scale === "classes" ? "" : `, normalize=${set.scale === "none" ? "None" : '"samples"'}`;
      line.textContent = volume === Infinity
        ? `longtail.class_weights(counts, "inverse"${scaled})`
        : `longtail.class_weights(counts, volume=${volume}${scaled})`;
      if (waiting) return;
      waiting = true; // many steps of a dragged slider make one drawing
      requestAnimationFrame(() => { waiting = false; redraw(id, ["effective", "weights"]); refill(); });
    }
    const rounded = (x) => Number(x.toPrecision(3));
    slider.addEventListener("input", () => choose(Math.max(1, rounded(10 ** Number(slider.value))), slider));
    number.addEventListener("input", () => choose(Number(number.value), number));
    scale.addEventListener("change", () => choose(set.volume));
    form.addEventListener("submit", (event) => event.preventDefault());
    choose(set.volume >= 1e300 ? Infinity : Number(set.volume.toPrecision(12)));
  }

  // ---- start

  for (const [id, set] of Object.entries(DATA.sets)) {
    set.rank = set.counts.map((_, i) => i + 1);
    set.points = pointsOf(set.counts.length);
    set.visible = new Set([set.best, set.other].filter((i) => i !== null && i !== undefined));
    set.matrix = { best: set.best, other: set.other };
    let refill = () => {};
    explorer($(`form.explorer[data-set="${id}"]`), set, id, () => refill());
    refill = classTable($(`.classes[data-set="${id}"]`), set, id);
    for (const box of $$(`.shown[data-set="${id}"] input`)) {
      const i = Number(box.value);
      box.checked = set.visible.has(i);
      box.addEventListener("change", () => {
        box.checked ? set.visible.add(i) : set.visible.delete(i);
        redraw(id, ["groups", "classes", "reliability", "curve-error", "curve-loss"]);
      });
    }
    for (const select of $$(`select.matrix[data-set="${id}"]`)) {
      const side = select.dataset.side;
      set.methods.forEach((m, i) => { if (m.matrix) select.append(make("option", { value: i, textContent: m.name, selected: i === set.matrix[side] })); });
      select.addEventListener("change", () => { set.matrix[side] = Number(select.value); redraw(id, [`matrix-${side}`]); });
    }
  }
  $$("table.sortable").forEach((table) => sortable([...table.tHead.rows[0].cells], (column, direction) => sortRows(table, column, direction)));
  $$(".chart").forEach((node) => watcher.observe(node));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    $$(".chart").forEach((node) => { watcher.unobserve(node); draw(node); });
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    redrawAll();
  });
  window.longtail = { effectiveNumber, classWeights, sets: DATA.sets };
})();
