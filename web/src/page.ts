// One run as a page: the story from top to bottom in one tab, the lab in the other. Built anew at every change.

import { disposeCharts } from "./charts";
import { h, short, uid } from "./dom";
import { labPanel } from "./lab/panel";
import { chainPanel } from "./panels/waterfall";
import { findingsPanel, notesPanel } from "./panels/findings";
import { hero } from "./panels/hero";
import { lossPanel } from "./panels/loss";
import { riverPanel } from "./panels/river";
import { signalPanel } from "./panels/signal";
import { treatmentPanel } from "./panels/treatments";
import { weightsPanel } from "./panels/weights";
import { hold, page, restore, stateOf } from "./state";
import { forget, toggleTheme } from "./theme";
import type { ModelView, View } from "./types";
import { Zoom } from "./zoom";

let waiting: (() => void) | null = null; // a newer view, while the reader is in the lab

/** Draw a view, in place of what was there; what the reader had opened, chosen and scrolled to stays. */
export function drawView(root: HTMLElement, view: View, back: string | null = null): void {
  if (page.tab === "lab" && root.dataset.ready === "true") {
    waiting = () => drawView(root, view, back);
    return;
  }
  const held = hold(root);
  const again = root.dataset.ready === "true";
  disposeCharts();
  forget();
  const ids = view.models.map((_, i) => `model-${i}`);
  const run = h("div", { id: "tab-run", role: "tabpanel", "aria-labelledby": "to-run", tabindex: -1 },
    ...[...view.models.map((m, i) => modelPart(view, m, ids[i]!)), ...runPart(view)].filter((p): p is HTMLElement => p !== null));
  const lab = h("div", { id: "tab-lab", role: "tabpanel", "aria-labelledby": "to-lab", tabindex: -1 });
  root.replaceChildren(bar(view, ids, tabs(run, lab), back), run, lab, footer(view));
  root.dataset.ready = "true";
  root.dataset.steps = view.models.map((m) => m.loss.recorded).join(" ");
  if (again) restore(root, held);
}

export function themeButton(): HTMLElement {
  const button = h("button", { type: "button", class: "theme", "aria-label": "Switch between light and dark" }, "\u25d0");
  button.addEventListener("click", () => toggleTheme());
  return button;
}

function bar(view: View, ids: string[], tablist: HTMLElement, back: string | null): HTMLElement {
  const models = view.models.length > 1
    ? h("nav", { "aria-label": "Models" }, ...view.models.map((m, i) => h("a", { href: `#${ids[i]}`, class: `verdict-${m.verdict}` }, short(m.name, 30))))
    : null;
  return h("div", { class: "bar" },
    back === null ? h("span", { class: "brand" }, "unvanish") : h("a", { class: "brand", href: back }, "unvanish"),
    h("span", { class: "script", title: short(view.run.command, 500) }, short(view.run.name, 60)),
    models, tablist, themeButton());
}

/** Two tabs; arrows go between them. The lab is built when it is first looked at. */
function tabs(run: HTMLElement, lab: HTMLElement): HTMLElement {
  const parts = { run, lab };
  const names = { run: "Run", lab: "Lab" };
  const kinds = ["run", "lab"] as const;
  const buttons = kinds.map((kind) => h("button", { type: "button", role: "tab", id: `to-${kind}`, "aria-controls": `tab-${kind}` }, names[kind]));
  const choose = (kind: "run" | "lab", focus: boolean) => {
    page.tab = kind;
    kinds.forEach((k, i) => {
      buttons[i]!.setAttribute("aria-selected", String(k === kind));
      buttons[i]!.tabIndex = k === kind ? 0 : -1;
      parts[k].hidden = k !== kind;
      if (focus && k === kind) buttons[i]!.focus();
    });
    if (kind === "lab" && !lab.firstChild) lab.append(labPanel());
    const newer = waiting;
    if (kind === "run" && newer) {
      waiting = null;
      newer();
    }
  };
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => choose(kinds[i]!, false));
    button.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") choose(kinds[1 - i]!, true);
    });
  });
  choose(page.tab, false);
  return h("div", { class: "tabs", role: "tablist", "aria-label": "Views" }, ...buttons);
}

function modelPart(view: View, model: ModelView, anchor: string): HTMLElement {
  const id = uid("heading");
  const single = view.models.length === 1;
  const state = stateOf(model.name);
  const zoom = new Zoom(model, state);
  const signal = signalPanel(model, state, zoom);
  return h(
    "article",
    { class: "model", id: anchor, "data-model": model.name, "aria-labelledby": id },
    hero(model, view.run, id, single ? view.treatment : null, signal.show),
    lossPanel(model.loss, zoom),
    signal.section,
    chainPanel(model.chains, state),
    riverPanel(model.river, model.signal.rows, signal.open),
    single && view.treatment ? treatmentPanel(view.treatment) : null,
    findingsPanel(model.findings, signal.show),
    weightsPanel(model.weights, state),
    single ? notesPanel([...model.skipped, ...view.skipped], view.incidents) : notesPanel(model.skipped, []),
  );
}

function runPart(view: View): (HTMLElement | null)[] {
  if (view.models.length === 1) return [];
  const empty = view.models.length
    ? null
    : h("header", { class: "hero verdict-inconclusive", "data-panel": "verdict" },
        h("h1", {}, view.run.status === "running" ? "No model has been trained yet." : "No model was trained in this run."), h("p", { class: "status" }, view.run.status_text));
  return [empty, view.treatment ? treatmentPanel(view.treatment) : null, notesPanel(view.skipped, view.incidents)];
}

function footer(view: View): HTMLElement {
  const versions = Object.entries(view.run.versions).map(([name, version]) => `${name} ${version}`);
  const facts = [`run ${view.run.id}`, view.run.created, view.run.device, view.run.seed === null ? null : `seed ${view.run.seed}`, ...versions];
  return h("footer", {}, h("p", {}, facts.filter(Boolean).join("  \u00b7  ")));
}
