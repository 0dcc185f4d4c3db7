// Weights against steps: how each tensor's values are spread, and its norm. Three at a time, any by its name.

import { chart, stepAxis, tip, valueAxis, type Drawn } from "../charts";
import { h, panel, short, spread, table, uid } from "../dom";
import { plain } from "../format";
import type { ModelState } from "../state";
import type { Tokens } from "../theme";
import type { WeightParameter, WeightsView } from "../types";

export function weightsPanel(weights: WeightsView, state: ModelState): HTMLElement {
  const section = panel("weights", "Weights over time", `How the values of a tensor are spread, and its norm, step by step. ${weights.parameters.length} tensors were kept; choose any.`);
  section.dataset.parameters = String(weights.parameters.length);
  if (!weights.parameters.length) {
    section.append(h("p", { class: "empty" }, "No snapshot of the weights was kept."));
    return section;
  }
  section.append(bandKeys(), h("div", { class: "trio" }, ...weights.default.map((i, k) => card(weights, i, k, state))), numbers(weights));
  return section;
}

export function bandKeys(): HTMLElement {
  const key = (name: string, text: string) => h("li", {}, h("i", { class: name }), text);
  return h("ul", { class: "keys" }, key("median", "median"), key("band-3", "25 to 75 %"), key("band-2", "5 to 95 %"), key("band-1", "all values"), key("norm", "norm"));
}

function card(weights: WeightsView, given: number, place: number, state: ModelState): HTMLElement {
  const kept = weights.parameters.findIndex((p) => p.name === state.weights.get(place));
  const first = kept >= 0 ? kept : given;
  const id = uid("weights");
  const select = h("select", { id, "aria-label": "Tensor to show" }, ...weights.parameters.map((p, i) => h("option", { value: i, selected: i === first }, short(p.name, 60))));
  const fine = h("p", { class: "fine" });
  const drawn = chart(270, "weights");
  const box = h("div", { class: "weight-card" }, select, drawn.box, fine);
  const show = (i: number) => {
    const parameter = weights.parameters[i];
    if (parameter) fillCard(parameter, box, drawn, fine);
  };
  select.addEventListener("change", () => {
    state.weights.set(place, weights.parameters[Number(select.value)]?.name ?? "");
    show(Number(select.value));
  });
  show(first);
  return box;
}

function fillCard(parameter: WeightParameter, box: HTMLElement, drawn: Drawn, fine: HTMLElement): void {
  box.dataset.parameter = parameter.name;
  box.dataset.snapshots = String(parameter.steps.length);
  const bad = parameter.non_finite ? ` ${parameter.non_finite} snapshots hold NaN or infinite values.` : "";
  fine.textContent = `${parameter.shape.join(" \u00d7 ") || "scalar"}. ${parameter.summary}${bad}`;
  drawn.update((look) => bandsOption(parameter, look), `Values of ${short(parameter.name, 80)} over ${parameter.steps.length} snapshots. ${parameter.summary}${bad}`);
}

export function bandsOption(parameter: WeightParameter, look: Tokens): object {
  const low = parameter.steps[0] ?? 0;
  const high = parameter.steps[parameter.steps.length - 1] ?? 1;
  const lone = parameter.steps.length < 2;
  const x = (gridIndex: number, labels: boolean) =>
    stepAxis(look, low, high, { gridIndex, splitNumber: 3, ...(labels ? { name: "step", nameLocation: "middle", nameGap: 26 } : { axisLabel: { show: false } }) });
  const y = (gridIndex: number, extra: object) => valueAxis(look, { gridIndex, scale: true, splitNumber: 3, ...extra });
  return {
    grid: [
      { left: 44, right: 12, top: 10, height: 140 },
      { left: 44, right: 12, top: 178, height: 42 },
    ],
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    xAxis: [x(0, false), x(1, true)],
    yAxis: [y(0, {}), y(1, { splitNumber: 1, ...normRange(parameter, look) })],
    series: [
      ...band(parameter, 0, 6, look, 0.18),
      ...band(parameter, 1, 5, look, 0.3),
      ...band(parameter, 2, 4, look, 0.5),
      line("median", parameter, parameter.bands[3] ?? [], look.accent, 0, lone),
      line("norm", parameter, parameter.norm, look.ink, 1, lone),
    ],
    tooltip: { trigger: "axis", formatter: (items: { dataIndex: number }[]) => hover(parameter, items[0]?.dataIndex ?? 0) },
  };
}

function normRange(parameter: WeightParameter, look: Tokens): object {
  const values = parameter.norm.filter((v): v is number => v !== null);
  if (!values.length) return {};
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high - low) * 0.15, Math.abs(high) * 0.02, 1e-12);
  const [min, max] = [low - room, high + room];
  return { min, max, interval: max - min, axisLabel: { color: look.soft, fontSize: 11, formatter: (v: number) => plain(v, 3) } };
}

/** The area between two quantiles: a line that is not seen, and what is stacked on it. */
function band(parameter: WeightParameter, low: number, high: number, look: Tokens, opacity: number): object[] {
  const bottom = parameter.bands[low] ?? [];
  const top = parameter.bands[high] ?? [];
  const common = { type: "line", stack: `band${low}`, stackStrategy: "all", showSymbol: false, silent: true, lineStyle: { opacity: 0 }, xAxisIndex: 0, yAxisIndex: 0 };
  const heights = bottom.map((b, i) => {
    const t = top[i];
    return b === null || t === null || t === undefined ? null : t - b;
  });
  return [
    { ...common, name: `low${low}`, data: parameter.steps.map((s, i) => [s, bottom[i]]) },
    { ...common, name: `band${low}`, data: parameter.steps.map((s, i) => [s, heights[i]]), areaStyle: { color: look.band, opacity } },
  ];
}

function line(name: string, parameter: WeightParameter, values: (number | null)[], colour: string, at: number, lone: boolean): object {
  return {
    name,
    type: "line",
    data: parameter.steps.map((s, i) => [s, values[i]]),
    showSymbol: lone,
    symbolSize: 6,
    lineStyle: { width: 2, color: colour },
    itemStyle: { color: colour },
    xAxisIndex: at,
    yAxisIndex: at,
    z: 4,
  };
}

function hover(parameter: WeightParameter, i: number): HTMLElement {
  const at = (q: number) => plain(parameter.bands[q]?.[i]);
  return tip(`step ${parameter.steps[i] ?? ""}`, [
    ["median", at(3)],
    ["25 to 75 %", `${at(2)} to ${at(4)}`],
    ["5 to 95 %", `${at(1)} to ${at(5)}`],
    ["all", `${at(0)} to ${at(6)}`],
    ["norm", plain(parameter.norm[i])],
  ]);
}

function numbers(weights: WeightsView): HTMLElement {
  const rows = spread(weights.parameters.length, 2000).map((i) => {
    const p = weights.parameters[i]!;
    const last = p.steps.length - 1;
    return [short(p.name, 80), p.shape.join(" \u00d7 "), plain(p.norm[0]), plain(p.norm[last]), plain(p.bands[3]?.[0]), plain(p.bands[3]?.[last])];
  });
  return table("Weights, first and last snapshot", ["Tensor", "Shape", "First norm", "Last norm", "First median", "Last median"], rows);
}
