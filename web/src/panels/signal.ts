// The signal map with its colour bar, its folds, and the layer that opens below it.

import { h, panel, short, spread, table, uid } from "../dom";
import { decades, MARKS } from "../format";
import { SignalMap, told } from "../map";
import { patterns } from "../patterns";
import type { ModelState } from "../state";
import { scaleGradient, themed } from "../theme";
import type { Cell, ModelView, SignalView } from "../types";
import { zoomBar, type Zoom } from "../zoom";
import { layerPanel } from "./layer";

export interface SignalPart {
  section: HTMLElement;
  /** Bring a row of the map into view, at a step. */
  show: (row: number, step: number) => void;
  open: (row: number) => void;
}

export function signalPanel(model: ModelView, state: ModelState, zoom: Zoom): SignalPart {
  const signal = model.signal;
  const section = panel("signal", "Signal map", caption(signal));
  describe(section, signal);
  if (!signal.rows.length) {
    section.append(h("p", { class: "empty" }, "No backward pass was traced, so there is no map."));
    return { section, show: () => undefined, open: () => undefined };
  }
  const place = h("div", { class: "layer-place" });
  const map = new SignalMap(signal, {
    label: `Map of the backprop signal, ${signal.rows.length} layers by ${signal.traced} traced steps. ${signal.summary} Arrow keys move from cell to cell, Enter opens the layer, Space folds or unfolds its module.`,
    folded: state.folded,
    told,
    open: (row) => open(row, true),
    drawn: () => (section.dataset.drawn = "true"),
    zoom: (from, to) => zoom.to(from, to),
  });
  const select = layerSelect(signal.rows);
  const open = (row: number | null, scroll: boolean) => {
    state.layer = row === null ? null : (signal.rows[row] ?? null);
    section.dataset.open = state.layer ?? "";
    select.value = row === null ? "" : String(row);
    map.mark(row);
    const close = () => {
      open(null, false);
      map.canvas.focus({ preventScroll: true });
    };
    place.replaceChildren(...(row === null ? [] : [layerPanel(model, row, close)]));
    if (row !== null && scroll) place.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  select.addEventListener("change", () => open(select.value === "" ? null : Number(select.value), false));
  section.append(tools(map, select), zoomBar(zoom, "signal") ?? "", map.box, legend(signal), place, numbers(signal));
  zoom.listen((shown) => {
    map.window(shown.signal);
    section.dataset.columns = String(shown.signal.steps.length);
  });
  const kept = state.layer === null ? -1 : signal.rows.indexOf(state.layer);
  if (kept >= 0) open(kept, false);
  return {
    section,
    open: (row) => open(row, true),
    show: (row, step) => {
      open(row, false);
      map.show(row, step);
      map.box.scrollIntoView({ block: "center", behavior: "smooth" });
    },
  };
}

function layerSelect(rows: string[]): HTMLSelectElement {
  return h("select", { "aria-label": "Open a layer" }, h("option", { value: "" }, "Open a layer\u2026"), ...rows.map((name, i) => h("option", { value: i }, short(name, 60))));
}

function tools(map: SignalMap, select: HTMLSelectElement): HTMLElement {
  const button = (text: string, folded: boolean) => {
    const made = h("button", { type: "button", class: "small" }, text);
    made.addEventListener("click", () => map.foldAll(folded));
    return made;
  };
  const folds = map.groups.length ? [button("Fold modules", true), button("Unfold", false)] : [];
  return h("div", { class: "tools" }, select, ...folds, h("span", { class: "fine" }, map.groups.length ? "Click a row to open its layer, a bracket to fold its module." : "Click a row to open its layer.", h("span", { class: "for-mouse" }, " Drag over steps to zoom in.")));
}

function caption(signal: SignalView): string {
  return `How much of the learning signal reaches each layer, relative to the output layer. ${signal.summary}`;
}

function describe(section: HTMLElement, signal: SignalView): void {
  section.dataset.rows = String(signal.rows.length);
  section.dataset.columns = String(signal.steps.length);
  section.dataset.low = String(signal.low);
  section.dataset.high = String(signal.high);
  section.dataset.clipped = String(signal.clipped);
  section.dataset.nan = String(signal.counts.nan);
  section.dataset.zero = String(signal.counts.zero);
  section.dataset.unmeasured = String(signal.counts.unmeasured);
  section.dataset.skipped = String(signal.skipped.length);
}

export function ramp(low: number, high: number, title: string, gradient: () => string): HTMLElement {
  const id = uid("ramp");
  const bar = h("div", { class: "ramp", role: "img", "aria-label": `Colour scale from ${decades(low)} to ${decades(high)} decades` });
  themed(() => (bar.style.background = gradient()));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) => h("span", {}, decades(low + t * (high - low))));
  return h("div", { class: "ramp-box" }, h("p", { id }, title), bar, h("div", { class: "ramp-ticks", "aria-hidden": "true" }, ...ticks));
}

function legend(signal: SignalView): HTMLElement {
  const swatches = (["nan", "zero", "unmeasured"] as const).map((mark) =>
    h("li", { class: "swatch" }, swatch(mark), MARKS[mark] ?? mark, h("small", {}, ` ${signal.counts[mark]}`)),
  );
  swatches.push(h("li", { class: "swatch" }, h("i", { class: "skip-mark", "aria-hidden": "true" }, "\u00d7"), "skipped step: no weight changed", h("small", {}, ` ${signal.skipped.length}`)));
  return h(
    "div",
    { class: "legend" },
    ramp(signal.low, signal.high, "decades relative to the output layer", scaleGradient),
    h("ul", { class: "swatches" }, ...swatches),
    h("p", { class: "fine" }, small(signal)),
  );
}

function small(signal: SignalView): string {
  const measure = signal.gauge_free
    ? "Gradient norm times the spread of the layer's output, so rescaling a layer does not change it."
    : "Plain gradient norms: the spread of some layers' outputs is not known.";
  return signal.clipped ? `${measure} ${signal.clipped} cells lie outside of the scale and show its end colour.` : measure;
}

export function swatch(mark: string): HTMLCanvasElement {
  const canvas = h("canvas", { width: 44, height: 28, "aria-hidden": "true" });
  themed((look) => {
    const pen = canvas.getContext("2d");
    if (!pen) return;
    pen.setTransform(2, 0, 0, 2, 0, 0);
    pen.fillStyle = patterns(pen, look)[mark] ?? look.line;
    pen.fillRect(0, 0, 22, 14);
  });
  return canvas;
}

function numbers(signal: SignalView): HTMLElement {
  const rows = spread(signal.rows.length, 1000).map((r) => {
    const cells = signal.cells[r] ?? [];
    const values = cells.filter((c): c is number => typeof c === "number");
    const bad = cells.filter((c) => c === "nan" || c === "zero").length;
    return [
      short(signal.rows[r] ?? "", 80),
      cell(cells[0]),
      cell(signal.profile[r]),
      values.length ? decades(values.reduce((a, b) => Math.min(a, b))) : "-",
      values.length ? decades(values.reduce((a, b) => Math.max(a, b))) : "-",
      decades(signal.gains[r]),
      String(bad),
    ];
  });
  return table("Signal by layer, in decades", ["Layer", "First", "Last", "Lowest", "Highest", "Gain", "NaN or zero"], rows);
}

function cell(value: Cell | undefined): string {
  return typeof value === "number" ? decades(value) : MARKS[value ?? "unmeasured"] ?? "-";
}
