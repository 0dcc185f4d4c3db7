// The top: the story in three lines, how the run ended, and the signal as it fades from layer to layer.

import { copyButton } from "../copy";
import { h, rich, short, svg } from "../dom";
import { plain } from "../format";
import { scale } from "../theme";
import type { Cell, ModelView, RunView, SignalView, TreatmentView } from "../types";
import { told } from "../map";
import { place, type Show } from "./findings";

const GLYPHS: Record<string, string> = { sick: "!", not_learning: "?", inconclusive: "\u2026", healthy: "\u2713" };
const BARS = 160;
const MOST = 4; // layers that are named

/** `show` brings a layer's row of the map into view, at a step. */
export function hero(model: ModelView, run: RunView, id: string, treatment: TreatmentView | null, show: Show): HTMLElement {
  return h(
    "header",
    { class: `hero verdict-${model.verdict}`, "data-panel": "verdict", "data-verdict": model.verdict },
    h("p", { class: "eyebrow" },
      h("i", { class: "glyph", "aria-hidden": "true" }, GLYPHS[model.verdict] ?? ""),
      h("span", { class: "label" }, "Verdict"), model.headline.word, h("span", { class: "model-name" }, short(model.name, 60))),
    h("h1", { id }, model.headline.claim),
    h("dl", { class: "story" },
      h("div", {}, h("dt", {}, "Why"), h("dd", { "data-line": "why" }, ...rich(model.headline.why))),
      where(model, show),
      h("div", {}, h("dt", {}, "Next"), h("dd", { "data-line": "next" }, ...next(model, treatment))),
      treatment ? h("div", {}, h("dt", {}, "Tried"), h("dd", { "data-line": "tried" }, tried(treatment))) : null),
    ribbon(model.signal),
    h("div", { class: "facts" },
      h("p", { class: `status status-${run.status}`, "data-panel": "status", "data-status": run.status }, h("i", { "aria-hidden": "true" }), run.status_text),
      h("dl", {}, ...model.facts.map((f) => h("div", {}, h("dt", {}, f.name), h("dd", {}, f.value))))),
  );
}

/** The layers of the first finding, as the terminal names them; each leads to its row. */
function where(model: ModelView, show: Show): HTMLElement | null {
  const finding = model.findings[0];
  if (!finding?.layers.length || model.verdict === "healthy") return null;
  const few = finding.layers.length <= MOST + 1 ? finding.layers : finding.layers.slice(0, MOST);
  const more = finding.layers.length - few.length;
  const parts = few.flatMap((name, i): (Node | string)[] => [i ? (i === few.length - 1 && !more ? " and " : ", ") : "", place(short(name, 40), finding.layer_rows[i] ?? null, finding.first_step, show)]);
  const worst = finding.layers.length > 1 ? " (the worst first)" : "";
  return h("div", {}, h("dt", {}, "Where"), h("dd", { "data-line": "where" }, finding.layers.length > 1 ? "Layers " : "Layer ", ...parts, more ? ` and ${more} more` : "", worst));
}

/** What was tried and works comes before what is advised; how to have it is a command to copy. */
function next(model: ModelView, treatment: TreatmentView | null): (Node | string)[] {
  if (!treatment?.next) return rich(model.headline.next) as (Node | string)[];
  const { text, command } = treatment.next;
  return command === null ? [text] : [text, h("span", { class: "command" }, h("code", {}, command), copyButton("command", () => command, "Copy", "Select it and copy"))];
}

/** What the trials came to, with the two losses that tell it. */
function tried(treatment: TreatmentView): string {
  const [base, chosen] = [treatment.rows.find((r) => r.role === "baseline"), treatment.rows.find((r) => r.chosen)];
  if (!base || !chosen || base.last === null || chosen.last === null) return treatment.summary;
  return `${treatment.summary} With it the loss ends at ${plain(chosen.last)} instead of ${plain(base.last)}.`;
}

/** One bar per layer, from the data on the left to the output on the right; the height is the signal's log. */
function ribbon(signal: SignalView): HTMLElement | null {
  const layers = signal.profile.map((cell, i): [string, Cell] => [signal.rows[i] ?? "", cell]);
  if (layers.length < 2) return null;
  const shown = layers.length <= BARS ? layers : Array.from({ length: BARS }, (_, i) => layers[Math.round((i * (layers.length - 1)) / (BARS - 1))]!);
  const [width, height] = [1000, 92];
  const step = width / shown.length;
  const bars = shown.map(([name, cell], i) => bar(name, cell, i * step, step, height, signal));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": signal.summary }, ...bars);
  return h("figure", { class: "ribbon", "data-layers": layers.length }, picture,
    h("figcaption", {}, h("span", {}, "data"), h("span", {}, "\u2190 the learning signal runs this way"), h("span", {}, "loss")));
}

function bar(name: string, cell: Cell, x: number, step: number, height: number, signal: SignalView): SVGElement {
  const gap = Math.min(step * 0.16, 5);
  const known = typeof cell === "number";
  const at = known ? Math.min(Math.max((cell - signal.low) / (signal.high - signal.low || 1), 0), 1) : 0;
  const tall = known ? 5 + at * (height - 5) : height;
  const box = svg("rect", { x: x + gap / 2, width: Math.max(step - gap, 0.5), y: height - tall, height: tall, rx: Math.min(3, step / 5), class: known ? "" : `odd odd-${cell}` });
  if (known) box.setAttribute("fill", scale(at));
  box.append(svg("title", {}, `${short(name, 80)}: ${told(cell)}`));
  return box;
}
