// What was tried, what theory said before, and what came of it.

import { chart, logAxis, stepAxis, tip, valueAxis } from "../charts";
import { h, panel, short, svg } from "../dom";
import { plain } from "../format";
import { SERIES, type Tokens } from "../theme";
import { beforeAfter } from "./before";
import { patchView } from "./patch";
import type { TreatmentView, TrialRow } from "../types";

const GLYPHS: Record<string, string> = { cured: "\u2713", improved: "\u2197", no_better: "\u2013", worse: "\u2198", failed: "\u2715" };
const HELPED = new Set(["cured", "improved"]);

export function treatmentPanel(view: TreatmentView): HTMLElement {
  const section = panel("treatment", "Treatments", `${view.summary} The gain per layer is how much of the squared signal one layer passes on; at 1 it neither fades nor grows.`);
  section.dataset.trials = String(view.rows.length - 1);
  section.dataset.chosen = view.chosen ?? "";
  const drawn = chart(320, "trials");
  const colours = colouring(view);
  let lit: string | null = null;
  const draw = () => drawn.update((look) => option(view, look, colours, lit), `Loss curves of ${view.rows.length} variants. ${view.summary}`);
  draw();
  const light = (name: string | null) => {
    if (name === lit) return;
    lit = name;
    draw();
  };
  const hasCurves = view.rows.some((r) => r.curve);
  section.append(laneKeys(), trialTable(view, colours, light));
  if (hasCurves) section.append(h("h3", {}, "Loss of every trial"), h("p", { class: "caption" }, "Mean over the seeds, and their range. Grey: what did not help. Point at a row above, or step to it with the Tab key, to single it out."), curveKeys(view, colours), drawn.box);
  section.append(...beforeAfter(view));
  if (view.patch) section.append(h("h3", {}, "The change in the source"), patchView(view.patch, view.diff ?? "treatment.diff"));
  section.append(...untried(view), ...notes(view), files(view));
  section.dataset.untried = String(view.untried.length);
  return section;
}

function untried(view: TreatmentView): HTMLElement[] {
  if (!view.untried.length) return [];
  return [h("h3", {}, "Not tried"), h("ul", { class: "notes untried" }, ...view.untried.map((u) => h("li", { "data-untried": u.name }, h("b", {}, short(u.title, 80)), ` ${u.why}`)))];
}

function notes(view: TreatmentView): HTMLElement[] {
  if (!view.notes.length) return [];
  return [h("h3", {}, "To be known"), h("ul", { class: "notes trial-notes" }, ...view.notes.map((text) => h("li", {}, text)))];
}

function laneKeys(): HTMLElement {
  const key = (name: string, text: string) => h("li", {}, h("i", { class: name }), text);
  return h("ul", { class: "keys" }, key("ring", "predicted by theory"), key("full", "measured"), key("one", "1: the signal keeps its size"));
}

function curveKeys(view: TreatmentView, colours: Map<string, string | null>): HTMLElement {
  const helped = view.rows.filter((r) => r.curve && colours.get(r.name)).map((r) => {
    const mark = h("i", { class: "median" });
    mark.style.borderColor = colours.get(r.name)!;
    return h("li", { "data-curve": r.name }, mark, short(r.title, 48));
  });
  const list = h("ul", { class: "keys" }, ...helped, h("li", {}, h("i", { class: "guess" }), "untreated"));
  if (view.chance !== null) list.append(h("li", {}, h("i", { class: "guess fine-dash" }), `best constant guess: ${plain(view.chance, 4)}`));
  return list;
}

function colouring(view: TreatmentView): Map<string, string | null> {
  let next = 0;
  return new Map(view.rows.map((r) => {
    const helped = r.role === "trial" && HELPED.has(r.outcome);
    return [r.name, helped ? SERIES[next++ % SERIES.length]! : null];
  }));
}

function trialTable(view: TreatmentView, colours: Map<string, string | null>, light: (name: string | null) => void): HTMLElement {
  const heads = ["Variant", "Gain per layer", "Predicted", "Measured", "Loss", "Outcome"];
  const body = h("tbody", {}, ...view.rows.map((row) => trialRow(row, view, colours, light)));
  return h(
    "div",
    { class: "scroll" },
    h("table", { class: "trials" },
      h("caption", { class: "unseen" }, "Treatments: predicted and measured gain per layer, last loss with its interval, outcome"),
      h("thead", {}, h("tr", {}, ...heads.map((t) => h("th", { scope: "col" }, t)))), body),
  );
}

function trialRow(row: TrialRow, view: TreatmentView, colours: Map<string, string | null>, light: (name: string | null) => void): HTMLElement {
  const dot = h("i", { class: "dot" });
  const colour = colours.get(row.name);
  if (colour) dot.style.background = colour;
  const stuck = row.stuck_seeds ? `stuck in ${row.stuck_seeds} of ${row.seeds} seeds` : `${row.seeds} ${row.seeds === 1 ? "seed" : "seeds"}`;
  const why = row.why.replaceAll(" -> ", " \u2192 ");
  const outcome = row.role === "baseline" ? "baseline" : row.outcome;
  const cell = (label: string, ...children: (Node | string | null)[]) => h("td", { "data-label": label }, ...children);
  const element = h(
    "tr",
    { class: row.chosen ? "chosen" : "", "data-trial": row.name, "data-outcome": outcome, tabindex: 0 },
    h("th", { scope: "row" }, h("span", { class: "variant" }, dot, h("span", {}, short(row.title, 60), row.chosen ? h("b", { class: "tag" }, "chosen") : null, h("small", {}, why)))),
    cell("Gain per layer", lane(row, view)),
    cell("Predicted", h("span", { class: "n" }, row.predicted_text)),
    cell("Measured", h("span", { class: "n" }, row.measured_text)),
    cell("Loss", h("span", {}, h("span", { class: "n" }, row.loss_text), h("small", {}, `rate ${row.learning_rate}, ${stuck}`))),
    cell("Outcome", h("span", { class: `outcome outcome-${outcome}` }, GLYPHS[outcome] ? h("i", { "aria-hidden": "true" }, GLYPHS[outcome]!) : null, row.outcome_text)),
  );
  for (const event of ["pointerenter", "focus"]) element.addEventListener(event, () => light(row.name));
  for (const event of ["pointerleave", "blur"]) element.addEventListener(event, () => light(null));
  return element;
}

/** Predicted (ring) and measured (dot) on one log axis, with the line where the signal neither fades nor grows. */
function lane(row: TrialRow, view: TreatmentView): Element {
  const [low, high] = [Math.log10(view.gain_low) - 0.08, Math.log10(view.gain_high) + 0.08];
  const x = (gain: number) => 6 + (148 * (Math.log10(gain) - low)) / (high - low);
  const children: SVGElement[] = [
    svg("line", { x1: 4, x2: 156, y1: 12, y2: 12, class: "lane-base" }),
    svg("line", { x1: x(1), x2: x(1), y1: 3, y2: 21, class: "lane-one" }),
  ];
  if (row.predicted !== null) children.push(svg("circle", { cx: x(row.predicted), cy: 12, r: 5, class: "lane-predicted" }));
  if (row.measured !== null) children.push(svg("circle", { cx: x(row.measured), cy: 12, r: 3.2, class: "lane-measured" }));
  const label = `predicted ${row.predicted_text}, measured ${row.measured_text}; 1 keeps the signal`;
  return svg("svg", { class: "lane", viewBox: "0 0 160 24", preserveAspectRatio: "xMinYMid", role: "img", "aria-label": label }, ...children);
}

function option(view: TreatmentView, look: Tokens, colours: Map<string, string | null>, lit: string | null): object {
  const rows = view.rows.filter((r) => r.curve);
  const high = Math.max(1, ...rows.map((r) => r.curve!.steps[r.curve!.steps.length - 1] ?? 1));
  const series: object[] = [];
  for (const row of rows) series.push(...curve(row, look, colours.get(row.name) ?? null, lit));
  const first = series[0] as Record<string, unknown> | undefined;
  if (first && view.chance !== null) {
    first.markLine = {
      silent: true, symbol: "none",
      data: [{ yAxis: view.chance, lineStyle: { color: look.soft, type: [2, 3], width: 1.25 }, label: { show: false } }],
    };
  }
  return {
    grid: { left: 48, right: 20, top: 24, bottom: 46 },
    xAxis: stepAxis(look, 0, high, { name: "step of the trial", nameLocation: "middle", nameGap: 28 }),
    yAxis: view.log ? logAxis(look, view.low, view.high) : valueAxis(look, { scale: true }),
    series,
    tooltip: { trigger: "axis", formatter: (items: { seriesName: string; data: [number, number] }[]) => hover(view, items, colours, look) },
  };
}

function curve(row: TrialRow, look: Tokens, colour: string | null, lit: string | null): object[] {
  const c = row.curve!;
  const tone = colour ?? look.faint;
  const dim = lit !== null && lit !== row.name ? 0.15 : 1;
  const pairs = (values: (number | null)[]) => c.steps.map((s, i) => [s, values[i]]);
  const common = { type: "line", showSymbol: false, stackStrategy: "all", silent: true, lineStyle: { opacity: 0 }, tooltip: { show: false } };
  const span = c.high.map((hi, i) => { const lo = c.low[i]; return hi === null || lo === null || lo === undefined ? null : hi - lo; });
  const line = { name: row.name, type: "line", showSymbol: false, data: pairs(c.mean), itemStyle: { color: tone },
    lineStyle: { width: row.chosen || lit === row.name ? 3 : 1.75, color: tone, opacity: dim, type: row.role === "baseline" ? [6, 4] : "solid" }, z: colour ? 4 : 3 };
  if (!colour && lit !== row.name) return [line];
  return [
    line,
    { ...common, name: `\u0000low ${row.name}`, stack: row.name, data: pairs(c.low) },
    { ...common, name: `\u0000span ${row.name}`, stack: row.name, data: pairs(span), areaStyle: { color: tone, opacity: 0.14 * dim } },
  ];
}

function hover(view: TreatmentView, items: { seriesName: string; data: [number, number] }[], colours: Map<string, string | null>, look: Tokens): HTMLElement {
  const titles = new Map(view.rows.map((r) => [r.name, r.title]));
  const lines = items
    .filter((item) => titles.has(item.seriesName))
    .sort((a, b) => a.data[1] - b.data[1])
    .map((item): [string, string, string] => [short(titles.get(item.seriesName) ?? "", 34), plain(item.data[1], 3), colours.get(item.seriesName) ?? look.faint]);
  return tip(`step ${items[0]?.data[0] ?? ""}`, lines);
}

function files(view: TreatmentView): HTMLElement {
  const list = h("dl", { class: "ends" });
  const add = (name: string, value: string | null) => value && list.append(h("div", {}, h("dt", {}, name), h("dd", {}, value)));
  add("recipe", view.recipe);
  add("patch", view.diff);
  add("stopped early", view.stopped);
  add("tried in", view.wall_seconds === null ? null : `${plain(view.wall_seconds, 2)} s`);
  return list;
}

