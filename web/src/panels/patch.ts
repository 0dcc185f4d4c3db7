// The source patch, coloured line by line; every line says by its sign what it is.

import { h } from "../dom";

export function patchView(patch: string, name: string): HTMLElement {
  const lines = patch.split(/\r?\n/);
  if (lines[lines.length - 1] === "") lines.pop();
  const kinds = lines.map(kindOf);
  const [added, removed] = [kinds.filter((k) => k === "added").length, kinds.filter((k) => k === "removed").length];
  const code = h("pre", { class: "patch", tabindex: 0, role: "region", "aria-label": `Patch ${name}: ${added} lines added, ${removed} removed`, "data-added": added, "data-removed": removed },
    ...lines.map((line, i) => h("span", { class: `line ${kinds[i]}` }, `${line}\n`)));
  return h("div", { class: "patch-box" }, h("p", { class: "fine" }, `${added} ${added === 1 ? "line" : "lines"} added, ${removed} removed. Apply it with: git apply ${name}`), code);
}

function kindOf(line: string): string {
  if (line.startsWith("+++") || line.startsWith("---") || line.startsWith("diff ") || line.startsWith("index ")) return "file";
  if (line.startsWith("@@")) return "place";
  return line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "same";
}
