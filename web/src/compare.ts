// Several runs side by side: what each came to, their losses in one picture, their maps, and where two maps differ.

import { chart, logAxis, stepAxis, tip, valueAxis, disposeCharts } from "./charts";
import { h, panel, short } from "./dom";
import { decades, plain } from "./format";
import { SignalMap, told } from "./map";
import { themeButton } from "./page";
import { ramp } from "./panels/signal";
import { hold, restore, stateOf } from "./state";
import { divergingGradient, forget, scaleGradient, SERIES, tokens, type Tokens } from "./theme";
import type { Cell, CompareView, DifferenceView, ModelView, Num, View } from "./types";

interface Member { view: View; model: ModelView; place: number }
interface Group { name: string; members: Member[] }

export function drawCompare(root: HTMLElement, compare: CompareView, back: string | null): void {
  const held = hold(root);
  disposeCharts();
  forget();
  const groups = groupsOf(compare.runs);
  root.replaceChildren(
    h("div", { class: "bar" }, back === null ? h("span", { class: "brand" }, "unvanish") : h("a", { class: "brand", href: back }, "unvanish"), h("span", { class: "script" }, `${compare.runs.length} runs side by side`), themeButton()),
    verdicts(compare.runs),
    ...(groups.length ? groups : [{ name: "", members: [] }]).map((group, i) => part(group, i, groups.length > 1, compare)),
  );
  root.dataset.ready = "true";
  restore(root, held);
}

/** Which models belong together: those of the same name; where the first run shares no name with another, by their order. */
function groupsOf(runs: View[]): Group[] {
  const first = runs[0]?.models ?? [];
  const groups: Group[] = first.map((m) => ({ name: m.name, members: [] }));
  runs.forEach((view, place) => {
    const shared = view.models.some((m) => first.some((f) => f.name === m.name));
    view.models.forEach((model, k) => {
      const at = shared ? first.findIndex((f) => f.name === model.name) : k;
      const group = groups[at] ?? groups.find((g, i) => i >= first.length && g.name === model.name);
      if (group) group.members.push({ view, model, place });
      else groups.push({ name: model.name, members: [{ view, model, place }] });
    });
  });
  return groups;
}

/** One model in all runs that have it; with a heading of its own where there are several. */
function part(group: Group, i: number, several: boolean, compare: CompareView): HTMLElement {
  const { runs } = compare;
  const found = compare.differences.filter((d) => d.model === undefined || d.model === group.name);
  const parts = [losses(group.members, runs), maps(group.members, runs), ...found.map((d) => difference(d, runs))];
  if (!several) return h("div", { "data-model": group.name }, ...parts);
  const id = `compared-${i}`;
  const alone = group.members.length === 1 ? h("p", { class: "caption" }, `Only ${short(title(group.members[0]!.view, runs), 60)} has it.`) : null;
  return h("article", { class: "model", "data-model": group.name, "aria-labelledby": id }, h("h2", { id, class: "model-head" }, "Model ", h("code", {}, short(group.name, 60))), alone, ...parts);
}

function title(view: View, runs: View[]): string {
  const twins = runs.filter((r) => r.run.name === view.run.name).length > 1;
  if (!twins) return view.run.name;
  const stem = view.run.name.replace(/\.py$/, "");
  return view.run.id.includes(stem) ? view.run.id : `${view.run.name} (${view.run.id})`; // a run's name is in its id
}

function verdicts(runs: View[]): HTMLElement {
  const cards = runs.map((view, i) => {
    const dot = h("i", { class: "dot" });
    dot.style.background = SERIES[i % SERIES.length]!;
    const worst = view.models.find((m) => m.verdict === view.verdict) ?? view.models[0];
    const told = view.models.length > 1
      ? h("ul", { class: "card-models" }, ...view.models.map((m) => h("li", { "data-card-model": m.name }, h("p", {}, h("code", {}, short(m.name, 40)), " ", h("span", { class: `pill verdict-${m.verdict}` }, m.headline.word)), h("p", { class: "fine" }, m.headline.claim), facts(m))))
      : facts(view.models[0]);
    return h("article", { class: `card verdict-${view.verdict}`, "data-run": view.run.id },
      h("p", { class: "eyebrow" }, dot, worst?.headline.word ?? view.verdict), h("h2", {}, short(title(view, runs), 70)),
      view.models.length > 1 ? h("p", {}, `${view.models.length} models were trained.`) : h("p", {}, worst?.headline.claim ?? view.run.status_text), told);
  });
  return h("section", { class: "cards", "data-panel": "verdicts", "aria-label": "Verdicts" }, h("h1", { class: "unseen" }, "Runs compared"), ...cards);
}

function facts(model: ModelView | undefined): HTMLElement {
  const lowest = (model?.signal.profile ?? []).reduce<number>((a, c) => (typeof c === "number" ? Math.min(a, c) : a), Infinity);
  const lines: [string, string][] = [
    ["loss", model ? `${plain(model.loss.first)} to ${plain(model.loss.last)}` : "-"],
    ["steps", model ? model.loss.recorded.toLocaleString("en") : "-"],
    ["lowest signal", Number.isFinite(lowest) ? `${decades(lowest)} decades` : "-"],
  ];
  return h("dl", { class: "facts-small" }, ...lines.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v))));
}

function losses(members: Member[], runs: View[]): HTMLElement {
  const section = panel("losses", "Loss", "All runs on one axis.");
  const known = members.flatMap(({ view, model, place }) => (model.loss.steps.length ? [{ name: title(view, runs), loss: model.loss, colour: SERIES[place % SERIES.length]!, i: place }] : []));
  section.dataset.curves = String(known.length);
  if (!known.length) {
    section.append(h("p", { class: "empty" }, "No finite loss was recorded in any of the runs."));
    return section;
  }
  const drawn = chart(320, "losses");
  const values = known.flatMap((k) => [k.loss.min, k.loss.max]).filter((v): v is number => v !== null);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const option = (look: Tokens) => ({
    grid: { left: 48, right: 20, top: 16, bottom: 46 },
    xAxis: stepAxis(look, 0, Math.max(...known.map((k) => k.loss.steps[k.loss.steps.length - 1] ?? 1), 1), { name: "step", nameLocation: "middle", nameGap: 28 }),
    yAxis: low > 0 && high / low > 20 ? logAxis(look, low, high) : valueAxis(look, { scale: true }),
    series: known.map((k) => {
      const course = k.loss.smooth ?? k.loss;
      return { name: `${k.i}`, type: "line", showSymbol: false, data: course.steps.map((s: number, j: number) => [s, course.values[j]]), lineStyle: { width: 2.25, color: k.colour }, itemStyle: { color: k.colour } };
    }),
    tooltip: { trigger: "axis", formatter: (items: { seriesName: string; data: [number, Num] }[]) => tip(`step ${items[0]?.data[0] ?? ""}`, items.map((item) => {
      const run = known.find((k) => String(k.i) === item.seriesName);
      return [short(run?.name ?? "", 34), plain(item.data[1], 4), run?.colour];
    })) },
  });
  drawn.update(option, `Loss of ${known.length} runs: ${known.map((k) => `${short(k.name, 40)} ${k.loss.summary}`).join(" ")}`);
  const keys = h("ul", { class: "keys" }, ...known.map((k) => {
    const mark = h("i", { class: "median" });
    mark.style.borderColor = k.colour;
    return h("li", {}, mark, short(k.name, 60));
  }));
  section.append(keys, drawn.box);
  return section;
}

function maps(members: Member[], runs: View[]): HTMLElement {
  const section = panel("maps", "Signal maps", "The same colours in every map: how much of the learning signal reaches each layer, relative to the output layer.");
  const shown = members.flatMap(({ view, model }) => (model.signal.rows.length ? [{ view, model, signal: model.signal }] : []));
  section.dataset.maps = String(shown.length);
  if (!shown.length) {
    section.append(h("p", { class: "empty" }, "None of the runs was traced."));
    return section;
  }
  const low = Math.min(...shown.map((s) => s.signal.low));
  const high = Math.max(...shown.map((s) => s.signal.high));
  const figures = shown.map(({ view, model, signal }) => {
    const map = new SignalMap({ ...signal, low, high, gains: undefined }, { label: `Signal map of ${short(title(view, runs), 80)}. ${signal.summary}`, folded: stateOf(`map ${view.run.id} ${model.name}`).folded, told });
    return h("figure", { "data-map": view.run.id }, h("figcaption", {}, h("h3", {}, short(title(view, runs), 60))), map.box);
  });
  section.append(h("div", { class: "maps" }, ...figures), h("div", { class: "legend" }, ramp(low, high, "decades relative to the output layer", scaleGradient)));
  return section;
}

/** Which layers stand beside which, where that is not plain. */
function matching(d: DifferenceView, name: (id: string) => string): string {
  const only = (rows: string[] | undefined, id: string) => (rows?.length ? ` Only in ${name(id)}: ${rows.slice(0, 4).map((r) => short(r, 30)).join(", ")}${rows.length > 4 ? ` and ${rows.length - 4} more` : ""}.` : "");
  const position = d.aligned === "position" ? " The two have no layer's name in common, so layers stand beside each other by their position." : "";
  return `${position}${only(d.only_a, d.a)}${only(d.only_b, d.b)}`;
}

function difference(d: DifferenceView, runs: View[]): HTMLElement {
  const name = (id: string) => {
    const view = runs.find((r) => r.run.id === id);
    return short(view ? title(view, runs) : id, 60);
  };
  const section = panel("difference", "Where they differ", `Decades that a layer gets more (orange) or less (blue) in ${name(d.b)} than in ${name(d.a)}.${matching(d, name)}`);
  section.dataset.a = d.a;
  section.dataset.b = d.b;
  section.dataset.rows = String(d.rows.length);
  const values = d.cells.flatMap((r) => r.filter((c): c is number => typeof c === "number").map(Math.abs));
  if (!d.rows.length || !values.length) {
    section.append(h("p", { class: "empty" }, "The two runs have no layer in common that was traced in both."));
    return section;
  }
  const most = Math.max(values.reduce((a, b) => Math.max(a, b)), 1);
  const spoken = (cell: Cell) => (typeof cell === "number" ? `${decades(cell)} decades` : told(cell));
  const map = new SignalMap({ rows: d.rows, steps: d.steps, cells: d.cells, low: -most, high: most },
    { label: `Difference map, ${d.rows.length} layers by ${d.steps.length} steps, up to ${decades(most)} decades.`, folded: stateOf(`difference ${d.a} ${d.b} ${d.model ?? ""}`).folded, diverging: true, told: spoken });
  section.dataset.most = most.toFixed(2);
  section.append(map.box, h("div", { class: "legend" }, ramp(-most, most, "decades, second run minus first", () => divergingGradient(tokens().dark))));
  return section;
}
