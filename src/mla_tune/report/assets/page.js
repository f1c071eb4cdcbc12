"use strict";
// Draws the plots that are in view, in the colours of the theme, of what the filters ask for.
(() => {
  const { figures, themes, template } = JSON.parse(document.getElementById("drawn").textContent);
  const root = document.documentElement;
  const darkSystem = window.matchMedia("(prefers-color-scheme: dark)");
  const form = document.getElementById("filters");
  const plots = [...document.querySelectorAll(".plot")];
  const inView = new Set();
  const NARROW = 520;

  const chosenTheme = () => document.querySelector("#theme input:checked").value;
  const theme = () => {
    const chosen = chosenTheme();
    return chosen === "auto" ? (darkSystem.matches ? "dark" : "light") : chosen;
  };

  const coloured = (value, colours) => {
    if (typeof value === "string") return value.startsWith("@") ? colours[value] ?? value : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, coloured(item, colours)]));
  };

  // What is asked for, by facet; a facet of which nothing is ticked asks for all.
  const asked = () => {
    const found = {};
    for (const input of form?.querySelectorAll("input:checked") ?? [])
      (found[input.name] ??= new Set()).add(input.value);
    return Object.entries(found);
  };
  const isAsked = (facets, filters) =>
    filters.every(([name, values]) => !(name in facets) || values.has(facets[name]));

  const shownTraces = (key, filters) =>
    figures[key].data.filter((trace) => isAsked(trace.meta ?? {}, filters));

  // Cells of a heat map that are too narrow for an interval have the median alone.
  function fitted(trace, width) {
    if (trace.type !== "heatmap") return trace;
    const cell = (width - 120) / trace.x.length;
    if (cell > 110) return trace;
    const text = trace.text.map((row) => row.map((shown) => shown.split(" ")[0]));
    return { ...trace, text, textfont: { size: cell < 40 ? 9 : 11 } };
  }

  // In a plot of a row a trace, rows go with their traces. On a phone their names stand above.
  function setRows(layout, traces, isNarrow) {
    const row = isNarrow ? 40 : layout.meta.row;
    const around = layout.height - layout.meta.row * (layout.yaxis.range[1] + 0.4);
    layout.height = around + row * traces.length;
    layout.yaxis.range = [-0.6, traces.length - 0.4];
    if (!isNarrow) return;
    layout.yaxis.showticklabels = false;
    layout.annotations = traces.map((trace) => ({
      xref: "paper", x: 0, xanchor: "left", y: trace.y[0], yshift: 14, showarrow: false,
      text: `${trace.y[0]}: ${trace.text[0].trim().split(" (")[0]}`, font: { size: 11 } }));
    for (const trace of traces) trace.mode = "markers";
  }

  function draw(plot) {
    const key = plot.dataset.figure;
    const filters = asked();
    const colours = themes[theme()];
    const traces = shownTraces(key, filters);
    const layout = coloured({ ...figures[key].layout, template: { layout: template } }, colours);
    const width = plot.clientWidth;
    const drawn = coloured(traces, colours).map((trace) => fitted(trace, width));
    if (layout.meta?.row) setRows(layout, drawn, width < NARROW);
    if (width < NARROW && layout.coloraxis) layout.coloraxis.showscale = false;
    plot.style.minHeight = `${layout.height}px`;
    Plotly.react(plot, drawn, layout,
      { displayModeBar: false, responsive: true, doubleClick: false });
    plot.dataset.drawn = theme();
  }

  function filter() {
    const filters = asked();
    let shown = 0;
    for (const figure of document.querySelectorAll("figure")) {
      const plot = figure.querySelector(".plot");
      const rows = [...figure.querySelectorAll("tbody tr")];
      for (const row of rows) row.hidden = !isAsked(row.dataset, filters);
      const isEmpty = plot
        ? shownTraces(plot.dataset.figure, filters).length === 0
        : rows.every((row) => row.hidden);
      figure.hidden = isEmpty || !isAsked(figure.dataset, filters);
      shown += !figure.hidden;
    }
    for (const section of document.querySelectorAll("section")) {
      const none = section.querySelector(".none");
      if (none) none.hidden = section.querySelector("figure:not([hidden])") !== null;
    }
    const all = document.querySelectorAll("figure").length;
    const output = document.getElementById("shown");
    if (output) output.value = filters.length ? `${shown} of ${all} figures` : "";
    redraw();
  }

  function redraw() {
    for (const plot of plots) {
      if (inView.has(plot) && !plot.closest("figure").hidden) draw(plot);
      else delete plot.dataset.drawn;
    }
  }

  function dress() {
    root.dataset.theme = theme();
    redraw();
  }

  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) { inView.delete(target); continue; }
      inView.add(target);
      if (!target.dataset.drawn) draw(target);
    }
  }, { rootMargin: "400px" });

  root.dataset.theme = theme();
  darkSystem.addEventListener("change", dress);
  document.getElementById("theme").addEventListener("change", dress);
  form?.addEventListener("change", filter);
  form?.addEventListener("submit", (event) => event.preventDefault());
  form?.addEventListener("reset", () => setTimeout(filter));
  window.addEventListener("beforeprint", () => plots.forEach(draw));
  // Where filters stand above the results, they begin folded.
  if (window.matchMedia("(max-width: 60rem)").matches)
    form?.querySelector("details").removeAttribute("open");
  plots.forEach((plot) => observer.observe(plot));
})();
