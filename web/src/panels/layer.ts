// One layer, opened from the map: the spread of its signal, sizes, weights, and what its activation lets through.

import { chart, FONT, stepAxis, tip, valueAxis } from "../charts";
import { h, short, uid } from "../dom";
import { plain } from "../format";
import { scale, scaleBytes, themed, type Tokens } from "../theme";
import type { LayerView, ModelView, Num, SizesView } from "../types";
import { bandKeys, bandsOption } from "./weights";

const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz";
const HEIGHT = 250;

export function layerPanel(model: ModelView, row: number, close: () => void): HTMLElement {
  const layer = model.layers[row]!;
  const id = uid("layer");
  const button = h("button", { type: "button", class: "small close", "aria-label": "Close this layer" }, "Close");
  button.addEventListener("click", close);
  const box = h(
    "section",
    { class: "layer", "data-panel": "layer", "data-layer": layer.name, "aria-labelledby": id },
    h("header", {}, h("h3", { id }, short(layer.name, 80)), h("span", { class: "fine" }, [layer.module_class, layer.operation].filter(Boolean).join(", ")), button),
    h("p", { class: "fine" }, sentence(layer)),
  );
  box.append(h("div", { class: "quad" }, distribution(layer), sizes(layer, model.sizes), weights(layer, model), units(layer)));
  return box;
}

function sentence(layer: LayerView): string {
  const first = layer.output_std.find((v) => v !== null);
  const last = [...layer.output_std].reverse().find((v) => v !== null);
  const spread = first === undefined || last === undefined ? "" : ` Its output's spread went from ${plain(first)} to ${plain(last)}.`;
  return `Measured at ${layer.steps.length} traced steps.${spread}`;
}

function figure(name: string, title: string, caption: string, ...children: (Node | null)[]): HTMLElement {
  return h("figure", { class: "small-figure", "data-figure": name }, h("figcaption", {}, h("h4", {}, title), h("p", { class: "fine" }, caption)), ...children);
}

const RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";

/** A power of ten as it is written; between whole powers nothing. */
function power(value: number): string {
  if (!Number.isInteger(Number(value.toPrecision(9)))) return "";
  const digits = [...String(Math.abs(Math.round(value)))].map((d) => RAISED[Number(d)]).join("");
  return `10${value < 0 ? "\u207b" : ""}${digits}`;
}

// --- how the gradient at the layer's output is spread ------------------------------------------------------

function distribution(layer: LayerView): HTMLElement {
  const columns = layer.histogram.columns;
  const seen = columns.filter(Boolean).length;
  const title = "Gradient at its output, spread over time";
  if (!seen) return figure("spread", title, "No histogram was taken at this layer.");
  const bins = Math.max(...columns.map((c) => c.length));
  const top = layer.histogram.low + bins * layer.histogram.bin;
  const label = `Histogram of the absolute gradient at ${seen} steps, from ${plain(10 ** layer.histogram.low, 1)} to ${plain(10 ** top, 1)}; root mean square first ${sized(layer.rms[0])}, last ${sized(layer.rms[layer.rms.length - 1])}.`;
  const canvas = h("canvas", { class: "spread", role: "img", "aria-label": label });
  const draw = (look: Tokens) => drawSpread(canvas, layer, bins, look);
  new ResizeObserver(() => themedDraw()).observe(canvas);
  let latest: Tokens | null = null;
  const themedDraw = () => latest && draw(latest);
  themed((look) => {
    latest = look;
    draw(look);
  });
  const made = figure("spread", title, "Brighter: more of its elements have that size. Line: root mean square.", canvas);
  made.dataset.columns = String(seen);
  made.dataset.bins = String(bins);
  return made;
}

function sized(value: Num | undefined): string {
  return value === null || value === undefined ? "not known" : plain(10 ** value, 2);
}

function drawSpread(canvas: HTMLCanvasElement, layer: LayerView, bins: number, look: Tokens): void {
  const [wide, tall] = [canvas.clientWidth, HEIGHT];
  const pen = canvas.getContext("2d");
  if (!wide || !pen) return;
  const ratio = Math.min(devicePixelRatio || 1, 3);
  canvas.width = Math.round(wide * ratio);
  canvas.height = Math.round(tall * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const area = { x: 44, y: 6, w: wide - 56, h: tall - 46 };
  const columns = layer.histogram.columns;
  const small = h("canvas", { width: columns.length, height: bins });
  const inner = small.getContext("2d");
  if (!inner) return;
  const image = inner.createImageData(columns.length, bins);
  const bytes = scaleBytes(scale);
  columns.forEach((column, c) => {
    for (let b = 0; b < column.length; b += 1) {
      const level = DIGITS.indexOf(column[b]!);
      if (level <= 0) continue;
      const from = Math.round((level / 35) * 255) * 4;
      const to = ((bins - 1 - b) * columns.length + c) * 4;
      for (let k = 0; k < 4; k += 1) image.data[to + k] = bytes[from + k]!;
    }
  });
  inner.putImageData(image, 0, 0);
  pen.fillStyle = look.dark ? "#101015" : "#f0eee8";
  pen.fillRect(area.x, area.y, area.w, area.h);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, area.x, area.y, area.w, area.h);
  spreadAxes(pen, layer, bins, area, look);
}

interface Area { x: number; y: number; w: number; h: number }

function spreadAxes(pen: CanvasRenderingContext2D, layer: LayerView, bins: number, area: Area, look: Tokens): void {
  const { low, bin } = layer.histogram;
  const span = bins * bin;
  const y = (v: number) => area.y + area.h * (1 - (v - low) / span);
  pen.font = `12px ${FONT}`;
  pen.fillStyle = look.soft;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const step = Math.max(Math.ceil(span / 5), 1);
  for (let v = Math.ceil(low); v <= low + span; v += step) pen.fillText(power(v), area.x - 6, y(v));
  const x = (i: number) => area.x + ((i + 0.5) * area.w) / layer.steps.length;
  for (const [width, colour] of [[4, "rgba(0,0,0,.55)"], [2, "#ffffff"]] as const) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.beginPath();
    let drawing = false;
    layer.rms.forEach((v, i) => {
      if (v === null) drawing = false;
      else if (drawing) pen.lineTo(x(i), y(v));
      else {
        pen.moveTo(x(i), y(v));
        drawing = true;
      }
    });
    pen.stroke();
  }
  pen.textBaseline = "top";
  pen.textAlign = "left";
  pen.fillText(String(layer.steps[0] ?? ""), area.x, area.y + area.h + 6);
  pen.textAlign = "right";
  pen.fillText((layer.steps[layer.steps.length - 1] ?? 0).toLocaleString("en"), area.x + area.w, area.y + area.h + 6);
  pen.textAlign = "center";
  pen.fillText("traced step", area.x + area.w / 2, area.y + area.h + 22);
}

// --- how large its gradients and updates are ---------------------------------------------------------------

function sizes(layer: LayerView, all: SizesView): HTMLElement {
  const title = "Gradient and update sizes";
  const mine = layer.parameters.map((name) => all.parameters.find((p) => p.name === name)).filter((p): p is SizesView["parameters"][number] => p !== undefined);
  const own = mine[0];
  if (!own || !all.steps.length) return figure("sizes", title, "No size of this layer's gradients was recorded.");
  const drawn = chart(HEIGHT, "sizes");
  const still = h("p", { class: "fine" });
  const show = (parameter: SizesView["parameters"][number]) => {
    const moved = parameter.update.some((v) => v !== null);
    still.textContent = moved ? "" : "No update is drawn: at every step that was measured it was exactly zero.";
    made.dataset.parameter = parameter.name;
    made.dataset.points = String(parameter.gradient.filter((v) => v !== null).length);
    drawn.update((look) => sizesOption(all.steps, parameter, look), `Root mean square of the gradient and of the update of ${short(parameter.name, 80)} over ${all.steps.length} points: gradient first ${sized(parameter.gradient[0])}, last ${sized(parameter.gradient[parameter.gradient.length - 1])}.`);
  };
  const made = figure("sizes", title, "Root mean square of what arrives at the weights, and of what the step changed.", choose(mine.map((p) => p.name), (i) => show(mine[i]!)), sizeKeys(), drawn.box, still);
  show(own);
  return made;
}

function sizeKeys(): HTMLElement {
  return h("ul", { class: "keys" }, h("li", {}, h("i", { class: "median" }), "gradient"), h("li", {}, h("i", { class: "update" }), "update"));
}

function choose(names: string[], show: (i: number) => void): HTMLElement | null {
  if (names.length < 2) return null;
  const select = h("select", { "aria-label": "Parameter to show" }, ...names.map((name, i) => h("option", { value: i }, short(name, 60))));
  select.addEventListener("change", () => show(Number(select.value)));
  return select;
}

function sizesOption(steps: number[], parameter: { gradient: Num[]; update: Num[] }, look: Tokens): object {
  const line = (name: string, values: Num[], colour: string) => ({
    name, type: "line", data: steps.map((s, i) => [s, values[i]]), showSymbol: steps.length < 3, lineStyle: { width: 2, color: colour }, itemStyle: { color: colour },
  });
  return {
    grid: { left: 50, right: 12, top: 10, bottom: 42 },
    xAxis: stepAxis(look, steps[0] ?? 0, steps[steps.length - 1] ?? 1, { name: "step", nameLocation: "middle", nameGap: 26, splitNumber: 3 }),
    yAxis: valueAxis(look, { scale: true, minInterval: 1, axisLabel: { color: look.soft, fontSize: 12, formatter: power } }),
    series: [line("gradient", parameter.gradient, look.accent), line("update", parameter.update, look.warning)],
    tooltip: { trigger: "axis", formatter: (items: { seriesName: string; data: [number, Num]; color: string }[]) => tip(`step ${items[0]?.data[0] ?? ""}`, items.map((i) => [i.seriesName, sized(i.data[1]), i.color])) },
  };
}

// --- its weights, and its units ----------------------------------------------------------------------------

function weights(layer: LayerView, model: ModelView): HTMLElement {
  const title = "Weights over time";
  const mine = model.weights.parameters.filter((p) => layer.parameters.includes(p.name));
  if (!mine.length) return figure("weights", title, "No snapshot of this layer's weights was kept.");
  const drawn = chart(270, "layer-weights");
  const fine = h("p", { class: "fine" });
  const show = (i: number) => {
    const parameter = mine[i]!;
    made.dataset.parameter = parameter.name;
    made.dataset.snapshots = String(parameter.steps.length);
    fine.textContent = `${parameter.shape.join(" \u00d7 ") || "scalar"}. ${parameter.summary}`;
    drawn.update((look) => bandsOption(parameter, look), `Values of ${short(parameter.name, 80)} over ${parameter.steps.length} snapshots. ${parameter.summary}`);
  };
  const made = figure("weights", title, "How the values are spread, and their norm.", choose(mine.map((p) => p.name), show), bandKeys(), drawn.box, fine);
  show(0);
  return made;
}

function units(layer: LayerView): HTMLElement {
  const act = layer.activation;
  const title = "Dead and saturated units";
  if (!act) return figure("units", title, "No activation follows this layer, so nothing can be shut or saturated here.");
  const drawn = chart(HEIGHT - 26, "units");
  const made = figure("units", title, act.summary, unitKeys(act.closed.some((v) => v !== null), act.bound !== null, act.name), drawn.box);
  made.dataset.closed = String(act.closed[act.closed.length - 1] ?? "unknown");
  made.dataset.gain = String(act.gain[act.gain.length - 1] ?? "unknown");
  drawn.update((look) => unitsOption(act, look), `Share of the signal that the ${act.name} lets through, and of units that pass nothing, over ${act.steps.length} steps. ${act.summary}`);
  return made;
}

function unitKeys(closed: boolean, bound: boolean, name: string): HTMLElement {
  const key = (cls: string, text: string) => h("li", {}, h("i", { class: cls }), text);
  const list = h("ul", { class: "keys" }, key("median", `passed by the ${name}`));
  if (bound) list.append(key("guess", "the most it can pass"));
  if (closed) list.append(key("dead", "share of dead units"));
  return list;
}

function unitsOption(act: NonNullable<LayerView["activation"]>, look: Tokens): object {
  const line = (name: string, values: Num[], colour: string, extra: object = {}) => ({
    name, type: "line", data: act.steps.map((s, i) => [s, values[i]]), showSymbol: act.steps.length < 3, lineStyle: { width: 2, color: colour }, itemStyle: { color: colour }, ...extra,
  });
  const bound = act.bound === null ? {} : {
    markLine: { silent: true, symbol: "none", animation: false, label: { show: false }, data: [{ yAxis: act.bound, lineStyle: { color: look.soft, type: [5, 5], width: 1.25 } }] },
  };
  const top = Math.max(act.bound ?? 0, ...act.gain.map((v) => v ?? 0), ...act.closed.map((v) => v ?? 0)) * 1.1 || 1;
  return {
    grid: { left: 50, right: 12, top: 10, bottom: 42 },
    xAxis: stepAxis(look, act.steps[0] ?? 0, act.steps[act.steps.length - 1] ?? 1, { name: "step", nameLocation: "middle", nameGap: 26, splitNumber: 3 }),
    yAxis: valueAxis(look, { min: 0, max: top, axisLabel: { color: look.soft, fontSize: 12, showMaxLabel: false, formatter: (v: number) => String(Number(v.toPrecision(2))) } }),
    series: [line("passed", act.gain, look.accent, bound), line("dead", act.closed, look.critical, { areaStyle: { color: look.critical, opacity: 0.12 } })],
    tooltip: { trigger: "axis", formatter: (items: { seriesName: string; data: [number, Num]; color: string }[]) => tip(`step ${items[0]?.data[0] ?? ""}`, items.map((i) => [i.seriesName, plain(i.data[1]), i.color])) },
  };
}
