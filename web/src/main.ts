// Where the page begins: its data lies in it, or it names where to ask for them.

import { drawCompare } from "./compare";
import { h } from "./dom";
import { address, follow } from "./live";
import { drawView } from "./page";
import { drawRuns } from "./runs";
import { page } from "./state";
import { startTheme } from "./theme";
import type { CompareView, RunEntry, View } from "./types";
import "./style.css";

function told(name: string): string | null {
  return document.querySelector<HTMLMetaElement>(`meta[name="unvanish-${name}"]`)?.content ?? null;
}

function draw(root: HTMLElement, data: unknown, back: string | null): void {
  if ((data as { kind?: unknown }).kind === "compare") drawCompare(root, data as CompareView, back);
  else drawView(root, data as View, back);
}

/** A line at the foot of the window while the server can't be reached; the page stays as it was. */
function trouble(root: HTMLElement): (text: string | null) => void {
  const line = h("p", { class: "trouble", role: "status", hidden: true });
  document.body.append(line);
  return (text) => {
    line.hidden = text === null;
    line.textContent = text ?? "";
    if (text !== null && root.dataset.ready !== "true") root.replaceChildren(h("p", { class: "empty" }, text));
  };
}

function running(data: unknown): boolean {
  const runs = (data as CompareView).runs ?? [data as View];
  return runs.some((view) => view.run?.status === "running");
}

function start(): void {
  const root = document.getElementById("unvanish");
  if (!root) return;
  startTheme();
  const inline = document.getElementById("unvanish-view") ?? document.getElementById("unvanish-data");
  if (inline) {
    draw(root, JSON.parse(inline.textContent ?? "null"), null);
    return;
  }
  const [view, compare, runs] = [told("view"), told("compare"), told("runs")];
  const common = { trouble: trouble(root) };
  if (view !== null) page.served = address(view.replace(/view$/, "window"));
  if (view !== null) void follow({ ...common, url: address(view), again: running, draw: (data) => draw(root, data, address("../")) });
  else if (compare !== null) void follow({ ...common, url: address(compare), again: running, draw: (data) => draw(root, data, address("./")) });
  else if (runs !== null) void follow({ ...common, url: address(runs), again: () => true, draw: (data) => drawRuns(root, list(data)) });
}

function list(data: unknown): RunEntry[] {
  return Array.isArray(data) ? (data as RunEntry[]) : ((data as { runs?: RunEntry[] }).runs ?? []);
}

start();

// the lab's theory by name, so that a test can hold it against src/unvanish/theory
export { predictGains } from "./lab/theory";
export { code } from "./lab/net";
