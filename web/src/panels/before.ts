// The signal map of the untreated trial beside that of a treated one, on one colour scale.

import { h, short, uid } from "../dom";
import { decades } from "../format";
import { SignalMap, told } from "../map";
import { stateOf } from "../state";
import { scaleGradient } from "../theme";
import type { TreatmentView, TrialRow } from "../types";
import { ramp } from "./signal";

/** Nothing, where the trials have left no maps: a treatment that an older version recorded. */
export function beforeAfter(view: TreatmentView): HTMLElement[] {
  const before = view.rows.find((r) => r.role === "baseline" && r.map);
  const drawn = view.rows.filter((r) => r.role === "trial" && r.map);
  if (!before || !drawn.length) return [];
  const first = drawn.find((r) => r.chosen) ?? drawn[0]!;
  const after = h("div", { class: "after" });
  const box = h("div", { class: "maps before-after", "data-before": before.name }, figure(before, view, "Before"), after);
  const show = (row: TrialRow) => {
    box.dataset.after = row.name;
    after.replaceChildren(figure(row, view, "After"));
  };
  show(first);
  const same = [before, ...drawn].every((r) => r.map!.gauge_free === before.map!.gauge_free);
  return [
    h("h3", {}, "The signal, before and after"),
    h("p", { class: "caption" }, `The maps of the first paired seed, on one colour scale: how much of the learning signal reaches each layer while the trial trains.${same ? "" : " One of them holds plain gradient norms, the other takes the spread of the outputs into account."}`),
    ...picker(drawn, first, show),
    box,
    h("div", { class: "legend" }, ramp(view.map_low, view.map_high, "decades relative to the output layer", scaleGradient)),
  ];
}

function picker(drawn: TrialRow[], first: TrialRow, show: (row: TrialRow) => void): HTMLElement[] {
  if (drawn.length < 2) return [];
  const id = uid("after");
  const select = h("select", { id }, ...drawn.map((r, i) => h("option", { value: i, selected: r === first }, `${short(r.title, 60)} (${r.outcome_text})`)));
  select.addEventListener("change", () => show(drawn[Number(select.value)]!));
  return [h("p", { class: "picker" }, h("label", { for: id }, "After: "), select)];
}

function figure(row: TrialRow, view: TreatmentView, when: string): HTMLElement {
  const map = row.map!;
  const drawn = new SignalMap({ rows: map.rows, steps: map.steps, cells: map.cells, low: view.map_low, high: view.map_high },
    { label: `Signal map of the trial ${short(row.title, 80)}. ${map.summary}`, folded: stateOf(`trial ${row.name}`).folded, told });
  const numbers = map.profile.filter((c): c is number => typeof c === "number");
  const lowest = numbers.length ? `Lowest signal at the end: ${decades(Math.min(...numbers))} decades` : "No finite signal at the end";
  const came = row.role === "trial" ? `; ${row.outcome_text}` : "";
  return h("figure", { "data-trial-map": row.name, "data-rows": map.rows.length, "data-lowest": numbers.length ? Math.min(...numbers) : "" },
    h("figcaption", {}, h("h4", {}, `${when}: ${short(row.title, 60)}`), h("p", { class: "fine" }, `${lowest}${came}.`)), drawn.box);
}
