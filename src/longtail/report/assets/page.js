// Draws the charts that Python specified; computes nothing but the beta explorer's effective numbers and weights.
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
  // Plotly reads a few tags in texts; names are shown as they are
  const inert = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%\u200b{");
  const make = (tag, properties = {}, children = []) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };
  // ---- looks

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return { fg: read("--fg"), dim: read("--dim"), grid: read("--grid"), bg: read("--bg"), line: read("--line"), pale: translucent(read("--fg")) };
  }

  const translucent = (hex) => `rgba(${[1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16))},0.15)`;
  // "@fg" and its like stand for colours of the theme
  function themed(spec, look) {
    const named = (value) => (typeof value === "string" && value[0] === "@" ? look[value.slice(1)] : value);
    return JSON.parse(JSON.stringify(spec), (key, value) =>
      (!/color$/.test(key) ? value : Array.isArray(value) ? value.map(named) : named(value)));
  }

  function layout(look, changes = {}) {
    const axis = (more = {}) => ({
      gridcolor: look.grid, linecolor: look.line, zerolinecolor: look.line, automargin: true, ...more,
      title: more.title ? { text: more.title, standoff: 8 } : undefined,
    });
    const named = Object.entries({ xaxis: {}, yaxis: {}, ...changes });
    const rest = Object.fromEntries(named.map(([key, value]) => [key, /^[xy]axis/.test(key) ? axis(value) : value]));
    return {
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12, color: look.fg },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 10, t: 10, b: 10 }, height: 340,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, hovermode: "closest", hoverlabel: { align: "left" },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      ...rest,
    };
  }

  const CONFIG = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, // without hover it would always cover the legend
    toImageButtonOptions: { format: "svg" },
  };

  // ---- drawing: lazily, when a chart comes near the window

  // A trace with a row is drawn while its method is chosen; the note stands where none is left. Traces that name what
  // they show of the explorer, or counts of confusions, get their numbers and texts here.
  function chart(set, name, look) {
    const found = set.charts[name], choices = set.charts[found.choices]?.choices ?? found.choices;
    const spec = themed(choices ? choices[found.chosen] : found, look);
    const traces = spec.data.filter((t) => t.row === undefined || !set.visible || set.visible.has(t.row));
    if (spec.note && !traces.some((t) => t.row !== undefined)) return spec.note;
    for (const t of traces) {
      const values = set.explored?.[t.explored];
      if (values) {
        t.y = t.x.map((rank) => values[rank - 1] || null);
        t.text = t.x.map((rank) => `${inert(set.names[rank - 1])}: ${plain(values[rank - 1])}`);
      }
      if (t.counts) t.text = t.counts.map((row, r) => row.map((n, c) => `true ${t.names[r]}, taken for ${t.names[c]}: ${n}`));
    }
    if (traces.some((t) => t.explored)) spec.layout.yaxis.dtick = decades(traces.flatMap((t) => t.y));
    return [traces, layout(look, spec.layout)];
  }
  // ticks of a log axis: decades, and their 2 and 5 where there are few
  function decades(values) {
    const known = values.filter((v) => v > 0);
    return known.reduce((a, b) => Math.max(a, b)) < 300 * known.reduce((a, b) => Math.min(a, b)) ? "D2" : 1;
  }

  const drawn = new Set();
  function draw(node) {
    drawn.add(node);
    const made = chart(DATA.sets[node.dataset.set], node.dataset.chart, theme());
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
    const size = set.counts.length;
    const columns = [
      ["class", (i) => set.names[i]],
      ["training samples", (i) => set.counts[i], whole],
      ["group", (i) => (set.counts[i] > many ? "many" : set.counts[i] < few ? "few" : "medium")],
      ["effective number", (i) => set.explored.effective[i], plain],
      ["weight", (i) => set.explored.weights[i], plain],
    ];
    for (const { title, values, signed } of set.columns ?? []) {
      columns.push([title, (i) => values[i], (x) => (x === null ? "n/a" : (signed && x > 0 ? "+" : "") + x.toFixed(1))]);
    }
    let order = [...set.counts.keys()], kept = order, page = 0;
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
      order = [...set.counts.keys()].map((i) => [i, get(i)]).sort(([, a], [, b]) => {
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
    const presets = [["β = 0", 1], ["β = 0.9", 10], ["β = 0.99", 100], ["β = 0.999", 1e3], ["β = 0.9999", 1e4], ["1/n (β = 1)", Infinity]];
    const buttons = presets.map(([textContent, volume]) => make("button", { type: "button", textContent, onclick: () => choose(volume) }));
    $(".presets", form).append(...buttons);
    const head = set.counts.indexOf(high), tail = set.counts.lastIndexOf(low);
    let waiting = false;

    function choose(volume, from) {
      if (!(volume >= 1)) return; // an empty or half-written number changes nothing
      set.volume = volume;
      set.scale = scale.value;
      const weights = (scheme) => classWeights(set.counts, scheme, volume, set.scale);
      set.explored = {
        counts: set.counts, effective: set.counts.map((n) => effectiveNumber(n, volume)), weights: weights("effective"),
        none: weights("none"), inverse: weights("inverse"), inverse_sqrt: weights("inverse_sqrt"),
      };
      const beta = volume === Infinity ? 1 : (volume - 1) / volume;
      const betaText = beta === 1 && volume !== Infinity ? "1 − " + (1 / volume).toPrecision(3) : String(Number(beta.toPrecision(10)));
      const size = volume === Infinity ? "∞" : whole(volume);
      if (from !== slider) slider.value = volume === Infinity ? slider.max : Math.log10(volume);
      if (from !== number) number.value = volume === Infinity ? "" : volume;
      output.textContent = `N = ${size}, β = ${betaText}`;
      slider.setAttribute("aria-valuetext", output.textContent);
      form.dataset.volume = volume;
      buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(presets[k][1] === volume)));
      const ratio = set.explored.weights[tail] / set.explored.weights[head];
      facts.textContent =
        `Most frequent class: ${set.names[head]}, n = ${whole(high)}, E = ${plain(set.explored.effective[head])}, weight ${plain(set.explored.weights[head])}. ` +
        `Rarest: ${set.names[tail]}, n = ${whole(low)}, E = ${plain(set.explored.effective[tail])}, weight ${plain(set.explored.weights[tail])}. ` +
        `The tail weighs ${plain(ratio)} times the head (1/n: ${plain(high / low)} times).`;
      const [top, bottom] = [set.explored.effective[head], set.explored.effective[tail]];
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
    const boxes = $$(`.shown[data-set="${id}"] input`);
    set.visible = boxes.length ? new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value))) : null;
    if (set.counts) { // else charts alone
      let refill = () => {};
      explorer($(`form.explorer[data-set="${id}"]`), set, id, () => refill());
      refill = classTable($(`.classes[data-set="${id}"]`), set, id);
    }
    const chosen = Object.keys(set.charts).filter((name) => set.charts[name].data?.some((t) => t.row !== undefined));
    for (const box of boxes) {
      box.addEventListener("change", () => {
        set.visible[box.checked ? "add" : "delete"](Number(box.value));
        redraw(id, chosen);
      });
    }
    for (const select of $$(`select.matrix[data-set="${id}"]`)) {
      const name = select.dataset.chartOf;
      select.addEventListener("change", () => { set.charts[name].chosen = Number(select.value); redraw(id, [name]); });
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
