// The findings with what they were seen by, and what was not looked at.

import { h, panel, rich, short } from "../dom";
import type { FindingView, Note, View } from "../types";

const LAYERS = 10;
export type Show = (row: number, step: number) => void;

/** `show` brings the row of the map into view that a piece of evidence speaks of, at its first step. */
export function findingsPanel(findings: FindingView[], show: (row: number, step: number) => void): HTMLElement {
  const section = panel("findings", "Findings and evidence", findings.length ? "Each number beside the threshold that it crossed, and where that threshold comes from." : "Nothing out of range was found in what was checked.");
  section.dataset.findings = String(findings.length);
  for (const finding of findings) section.append(card(finding, show));
  return section;
}

function card(finding: FindingView, show: Show): HTMLElement {
  const sure = finding.confidence === null ? "" : `${Math.round(100 * finding.confidence)} % sure, `;
  const more = finding.layers.length - LAYERS;
  return h(
    "article",
    { class: "finding", "data-kind": finding.kind, "data-severity": finding.severity },
    h("h3", {}, h("span", { class: `pill pill-${finding.severity}` }, finding.severity), capital(finding.kind_text)),
    h("p", {}, ...rich(capital(finding.summary))),
    h("p", { class: "fine" }, `Cause: ${finding.cause_text}; ${sure}first seen at step ${finding.first_step}.`),
    finding.layers.length
      ? h("ul", { class: "chips", "aria-label": "Layers, the most starved first" },
          ...finding.layers.slice(0, LAYERS).map((name, i) => h("li", { title: short(name, 300) }, place(short(name, 40), finding.layer_rows[i] ?? null, finding.first_step, show))),
          more > 0 ? h("li", { class: "more" }, `and ${more} more`) : null)
      : null,
    evidence(finding, show),
    finding.advice.length
      ? h("div", { class: "advice" }, h("h4", {}, "What helps, in order"),
          h("ol", {}, ...finding.advice.map((a) => h("li", {}, h("code", {}, a.treatment), ` ${a.text}`))))
      : null,
  );
}

/** A name that leads to its place in the map, where it has one. */
export function place(name: string, row: number | null, step: number, show: Show): Node | string {
  if (row === null) return name;
  const link = h("button", { type: "button", class: "link", "data-row": row, title: "Show it in the map" }, name);
  link.addEventListener("click", () => show(row, step));
  return link;
}

function evidence(finding: FindingView, show: Show): HTMLElement {
  const heads = ["Layer", "Statistic", "Value", "Threshold", "Steps", "Source"];
  const rows = finding.evidence.map((e) => {
    const cells = [place(short(e.layer, 60), e.row, e.first, show), e.statistic, e.value, e.threshold, e.steps, e.source];
    return h("tr", {}, ...cells.map((text, i) => h("td", { "data-label": heads[i], class: i === 2 || i === 3 ? "n" : "" }, ...(typeof text === "string" ? rich(signed(text, i)) : [text]))));
  });
  return h("div", { class: "scroll" },
    h("table", { class: "evidence" },
      h("caption", { class: "unseen" }, `Evidence for: ${finding.kind_text}`),
      h("thead", {}, h("tr", {}, ...heads.map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, ...rows)));
}

/** Numbers with the minus that stands everywhere else on the page. */
function signed(text: string, column: number): string {
  return column === 2 || column === 3 ? text.replace(/^-(?=\d)/, "\u2212") : text;
}

export function notesPanel(skipped: Note[], incidents: View["incidents"]): HTMLElement | null {
  if (!skipped.length && !incidents.length) return null;
  const section = panel("notes", "Not checked", "What was left out, and why, so that silence is not taken for health.");
  section.dataset.skipped = String(skipped.length);
  section.dataset.incidents = String(incidents.length);
  if (skipped.length) section.append(h("ul", { class: "notes" }, ...skipped.map((s) => h("li", {}, h("b", {}, s.what), ` ${s.why}`))));
  if (incidents.length) {
    section.append(h("h3", {}, "Incidents"), h("ul", { class: "notes" },
      ...incidents.map((i) => h("li", {}, h("b", {}, `step ${i.step}, ${i.where}`), ` ${i.what}`))));
  }
  return section;
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
