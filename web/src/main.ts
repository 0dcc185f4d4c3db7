// The page: reads the view that lies in it, and draws it from top to bottom.

import { h, short, uid } from "./dom";
import { chainPanel } from "./panels/waterfall";
import { findingsPanel, notesPanel } from "./panels/findings";
import { hero } from "./panels/hero";
import { lossPanel } from "./panels/loss";
import { signalPanel } from "./panels/signal";
import { treatmentPanel } from "./panels/treatments";
import { weightsPanel } from "./panels/weights";
import { startTheme, toggleTheme } from "./theme";
import type { ModelView, View } from "./types";
import "./style.css";

function bar(view: View, ids: string[]): HTMLElement {
  const button = h("button", { type: "button", class: "theme", "aria-label": "Switch between light and dark" }, "\u25d0");
  button.addEventListener("click", () => toggleTheme());
  const models = view.models.length > 1
    ? h("nav", { "aria-label": "Models" }, ...view.models.map((m, i) => h("a", { href: `#${ids[i]}`, class: `verdict-${m.verdict}` }, short(m.name, 30))))
    : null;
  return h("div", { class: "bar" },
    h("span", { class: "brand" }, "unvanish"),
    h("span", { class: "script", title: short(view.run.command, 500) }, short(view.run.name, 60)),
    models, button);
}

function modelPart(view: View, model: ModelView, id: string): HTMLElement {
  const single = view.models.length === 1;
  return h(
    "article",
    { class: "model", "data-model": model.name, "aria-labelledby": id },
    hero(model, view.run, id),
    lossPanel(model.loss),
    signalPanel(model.signal),
    chainPanel(model.chains),
    weightsPanel(model.weights),
    single && view.treatment ? treatmentPanel(view.treatment) : null,
    findingsPanel(model.findings),
    single ? notesPanel([...model.skipped, ...view.skipped], view.incidents) : notesPanel(model.skipped, []),
  );
}

function runPart(view: View): (HTMLElement | null)[] {
  if (view.models.length === 1) return [];
  const empty = view.models.length
    ? null
    : h("header", { class: "hero verdict-inconclusive", "data-panel": "verdict" }, h("h1", {}, "No model was trained in this run."), h("p", { class: "status" }, view.run.status_text));
  return [empty, view.treatment ? treatmentPanel(view.treatment) : null, notesPanel(view.skipped, view.incidents)];
}

function footer(view: View): HTMLElement {
  const versions = Object.entries(view.run.versions).map(([name, version]) => `${name} ${version}`);
  const facts = [`run ${view.run.id}`, view.run.created, view.run.device, view.run.seed === null ? null : `seed ${view.run.seed}`, ...versions];
  return h("footer", {}, h("p", {}, facts.filter(Boolean).join("  \u00b7  ")));
}

function start(): void {
  const data = document.getElementById("unvanish-view");
  const root = document.getElementById("unvanish");
  if (!data || !root) return;
  const view = JSON.parse(data.textContent ?? "null") as View;
  startTheme();
  const ids = view.models.map(() => uid("model"));
  const parts = [bar(view, ids), ...view.models.map((m, i) => modelPart(view, m, ids[i]!)), ...runPart(view), footer(view)];
  root.replaceChildren(...parts.filter((p): p is HTMLElement => p !== null));
  root.dataset.ready = "true";
}

start();
