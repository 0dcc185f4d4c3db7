// The list of runs that a server has: what each came to, and which to put side by side.

import { h, short } from "./dom";
import { plain } from "./format";
import { address } from "./live";
import { themeButton } from "./page";
import { hold, restore } from "./state";
import { forget } from "./theme";
import type { RunEntry } from "./types";

const WORDS: Record<string, string> = { sick: "Sick", healthy: "Healthy", not_learning: "Not learning", inconclusive: "Inconclusive" };
const chosen = new Set<string>();

export function drawRuns(root: HTMLElement, runs: RunEntry[]): void {
  const held = hold(root);
  forget();
  const button = h("button", { type: "button", class: "compare", disabled: true }, "Compare");
  const update = () => {
    const ids = runs.map((r) => r.id).filter((id) => chosen.has(id));
    button.disabled = ids.length < 2;
    button.textContent = ids.length < 2 ? "Choose two to compare" : `Compare ${ids.length} runs`;
    button.dataset.href = address(`compare?runs=${ids.map(encodeURIComponent).join(",")}`);
  };
  button.addEventListener("click", () => location.assign(button.dataset.href!));
  const section = h("section", { class: "panel panel-runs", "data-panel": "runs", "data-runs": runs.length },
    h("header", { class: "runs-head" }, h("h1", { class: "plain" }, "Runs"), button),
    runs.length ? list(runs, update) : h("p", { class: "empty" }, "There is no run here yet. Start one with: unvanish run script.py"));
  root.replaceChildren(h("div", { class: "bar" }, h("span", { class: "brand" }, "unvanish"), themeButton()), section);
  update();
  restore(root, held);
  root.dataset.ready = "true";
}

function list(runs: RunEntry[], update: () => void): HTMLElement {
  const heads = ["", "Run", "Verdict", "Steps", "Loss", "Started"];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs" },
    h("table", { class: "runs" },
      h("thead", {}, h("tr", {}, ...heads.map((t) => h("th", { scope: "col" }, t || h("span", { class: "unseen" }, "Choose"))))),
      h("tbody", {}, ...runs.map((run) => row(run, update)))));
}

function row(run: RunEntry, update: () => void): HTMLElement {
  const box = h("input", { type: "checkbox", "aria-label": `Choose ${short(run.name || run.id, 80)}`, checked: chosen.has(run.id) });
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(run.id);
    else chosen.delete(run.id);
    update();
  });
  const verdict = run.verdict ?? "inconclusive";
  const loss = typeof run.loss === "object" && run.loss ? [run.loss.first, run.loss.last] : [null, run.loss];
  const told = loss[0] === null || loss[0] === undefined ? plain(loss[1] as number | null) : `${plain(loss[0])} to ${plain(loss[1] as number | null)}`;
  return h("tr", { "data-run": run.id },
    h("td", {}, box),
    h("th", { scope: "row" }, h("a", { href: address(`run/${encodeURIComponent(run.id)}`) }, short(run.name || run.id, 60)), h("small", {}, short(run.id, 60))),
    h("td", {}, h("span", { class: `pill verdict-${verdict}` }, run.verdict === null ? "not yet" : (WORDS[verdict] ?? verdict)), run.status === "finished" ? null : h("small", {}, run.status.replace("_", " "))),
    h("td", { class: "n", "data-label": "Steps" }, run.steps === null ? "-" : Number(run.steps).toLocaleString("en")),
    h("td", { class: "n", "data-label": "Loss" }, told),
    h("td", { class: "n", "data-label": "Started" }, String(run.created ?? "").slice(0, 16).replace("T", " ")));
}
