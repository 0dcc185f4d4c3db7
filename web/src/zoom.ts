// A stretch of the steps that the reader looks at more closely: the loss and the map show the same one.

import { h, uid } from "./dom";
import { ask, type Answer } from "./live";
import { page, type ModelState } from "./state";
import type { Cell, LossView, ModelView, Num, SignalView } from "./types";

export interface LossPart {
  steps: number[];
  values: Num[];
  smooth: { steps: number[]; values: Num[] } | null;
  exact: boolean;
}

export interface MapPart {
  steps: number[];
  cells: Cell[][];
  skipped: number[];
  exact: boolean;
}

/** What is shown: the whole run (`steps` null), or a stretch of it. */
export interface Shown {
  steps: [number, number] | null;
  loss: LossPart;
  signal: MapPart;
  awaited: boolean; // the server is about to give every step
}

type Listen = (shown: Shown) => void;

export class Zoom {
  readonly first: number;
  readonly last: number;
  private readonly listeners: Listen[] = [];
  private shown: Shown;
  private asked = 0;

  constructor(private readonly model: ModelView, private readonly state: ModelState) {
    const ends = [...model.loss.steps, ...model.signal.steps];
    this.first = ends.reduce((a, b) => Math.min(a, b), ends[0] ?? 0);
    this.last = ends.reduce((a, b) => Math.max(a, b), ends[0] ?? 0);
    this.shown = whole(model);
    if (state.window) this.to(...state.window);
  }

  /** Hear of it now, and whenever it changes. */
  listen(listener: Listen): void {
    this.listeners.push(listener);
    listener(this.shown);
  }

  all(): void {
    this.asked += 1;
    this.state.window = null;
    this.tell(whole(this.model));
  }

  /** At once from what lies in the page; from a server then as exactly as it was recorded. */
  to(from: number, until: number): void {
    const [low, high] = [Math.max(Math.min(from, until), this.first), Math.min(Math.max(from, until), this.last)];
    if (high - low < 1 || (low === this.first && high === this.last)) {
      this.all();
      return;
    }
    this.state.window = [low, high];
    this.asked += 1;
    const part = cut(this.model, low, high);
    const awaited = page.served !== null && !(part.loss.exact && part.signal.exact);
    this.tell({ ...part, awaited });
    if (awaited) void this.exactly(low, high, this.asked);
  }

  private async exactly(low: number, high: number, asked: number): Promise<void> {
    const url = new URL(page.served!);
    url.searchParams.set("model", this.model.name);
    url.searchParams.set("from", String(low));
    url.searchParams.set("to", String(high));
    let answer: Answer | null;
    try {
      answer = await ask(url.href, null);
    } catch {
      if (asked === this.asked) this.tell({ ...this.shown, awaited: false });
      return; // what lies in the page stays; the page itself says when its server is lost
    }
    if (!answer || asked !== this.asked) return; // the reader has moved on
    const found = answer.data as { loss: LossPart; signal: MapPart & { rows: string[] } };
    const rows = new Map(found.signal.rows.map((name, i) => [name, i]));
    const cells = this.model.signal.rows.map((name) => found.signal.cells[rows.get(name) ?? -1] ?? found.signal.steps.map((): Cell => "unmeasured"));
    this.tell({ steps: [low, high], loss: found.loss, signal: { ...found.signal, cells }, awaited: false });
  }

  private tell(shown: Shown): void {
    this.shown = shown;
    for (const listener of this.listeners) listener(shown);
  }
}

const lossIsExact = (loss: LossView) => loss.steps.length >= loss.finite;
const mapIsExact = (signal: SignalView) => signal.steps.length >= signal.traced;

function whole(model: ModelView): Shown {
  const { loss, signal } = model;
  return { steps: null, loss: { ...loss, exact: lossIsExact(loss) }, signal: { ...signal, exact: mapIsExact(signal) }, awaited: false };
}

function cut(model: ModelView, low: number, high: number): Shown {
  const { loss, signal } = model;
  const inside = (steps: number[]) => steps.flatMap((s, i) => (low <= s && s <= high ? [i] : []));
  const pick = <T>(values: T[], at: number[]) => at.map((i) => values[i]!);
  const [l, m] = [inside(loss.steps), inside(signal.steps)];
  const s = loss.smooth && inside(loss.smooth.steps);
  return {
    steps: [low, high],
    loss: {
      steps: pick(loss.steps, l), values: pick(loss.values, l), exact: lossIsExact(loss),
      smooth: loss.smooth && s && s.length > 2 ? { steps: pick(loss.smooth.steps, s), values: pick(loss.smooth.values, s) } : null,
    },
    signal: {
      steps: pick(signal.steps, m), cells: signal.cells.map((row) => pick(row, m)), exact: mapIsExact(signal),
      skipped: signal.skipped.flatMap((c) => (m.includes(c) ? [m.indexOf(c)] : [])),
    },
    awaited: false,
  };
}

const MANY = 60; // columns of a map

/** From which step to which, by numbers; a drag over the picture does the same. */
export function zoomBar(zoom: Zoom, what: "loss" | "signal"): HTMLElement | null {
  if (zoom.last - zoom.first < 20) return null;
  const number = (value: number, label: string) => h("input", { id: uid("zoom"), type: "number", min: zoom.first, max: zoom.last, step: 1, value, "aria-label": label });
  const [from, to] = [number(zoom.first, "From step"), number(zoom.last, "to step")];
  const back = h("button", { type: "button", class: "small", hidden: true }, "Whole run");
  const told = h("span", { class: "fine", role: "status" });
  const hint = what === "loss" ? h("span", { class: "fine for-mouse" }, "Or drag over the picture.") : null;
  const go = h("button", { type: "button", class: "small go" }, "Zoom");
  // no form: a notebook's sandbox lets none be sent, not even to the page itself
  const box = h("div", { class: "zoom", role: "group", "aria-label": "Steps to look at", "data-zoom": "whole" }, h("span", {}, "Steps"), from, h("span", {}, "to"), to, go, back, told, hint);
  const look = () => {
    const [a, b] = [from.valueAsNumber, to.valueAsNumber];
    zoom.to(Number.isFinite(a) ? Math.round(a) : zoom.first, Number.isFinite(b) ? Math.round(b) : zoom.last);
  };
  go.addEventListener("click", look);
  for (const input of [from, to]) input.addEventListener("keydown", (event) => event.key === "Enter" && look());
  back.addEventListener("click", () => {
    zoom.all();
    from.focus({ preventScroll: true });
  });
  zoom.listen((shown) => {
    const [a, b] = shown.steps ?? [zoom.first, zoom.last];
    from.value = String(a);
    to.value = String(b);
    back.hidden = shown.steps === null;
    if (hint) hint.hidden = shown.steps !== null;
    box.dataset.zoom = shown.steps ? `${a}-${b}` : "whole";
    box.hidden = what === "signal" && shown.steps === null && shown.signal.steps.length < MANY; // all are seen
    box.dataset.exact = String(shown[what].exact);
    told.textContent = spoken(shown, what);
  });
  return box;
}

function spoken(shown: Shown, what: "loss" | "signal"): string {
  if (!shown.steps) return "";
  const count = shown[what].steps.length;
  const name = what === "loss" ? `${count.toLocaleString("en")} losses` : `${count.toLocaleString("en")} traced steps`;
  if (shown[what].exact) return `${name}, all that were recorded here.`;
  if (shown.awaited) return `${name}; every one is on its way.`;
  return page.served ? `${name}; zoom in further for every one.` : `${name}, shortened for this file; unvanish serve shows every one.`;
}
