// The model graph as a river: where the signal runs from the loss to the data, parts and meets; its width is the log.

import { h, panel, short, svg } from "../dom";
import { decades } from "../format";
import { scale } from "../theme";
import type { RiverView } from "../types";

const WIDEST = 30;
const LANE = 46;

export function riverPanel(river: RiverView, rows: string[], open: (row: number) => void): HTMLElement {
  const section = panel("river", "The river of the signal", caption(river));
  section.dataset.nodes = String(river.nodes.length);
  section.dataset.edges = String(river.edges.length);
  if (river.nodes.length < 2) {
    section.append(h("p", { class: "empty" }, river.step === null ? "No backward pass was traced, so nothing can be drawn." : "One layer alone: the loss acts on it directly, nothing lies between."));
    return section;
  }
  section.append(h("div", { class: "scroll river-scroll", tabindex: 0, role: "region", "aria-label": "The model's graph" }, picture(river, rows, open)), keys());
  return section;
}

function caption(river: RiverView): string {
  const gathered = river.gathered ? ` ${river.gathered} places are gathered by module into ${river.nodes.length}.` : "";
  const step = river.step === null ? "" : ` Measured at step ${river.step}.`;
  return `From the loss on the right back to the data on the left. Width and colour: the log of the gradient that runs there. Arcs are skip connections, lanes are branches.${step}${gathered}`;
}

function keys(): HTMLElement {
  return h("ul", { class: "keys" }, h("li", {}, h("i", { class: "place" }), "layer"), h("li", {}, h("i", { class: "place fork" }), "ways part or meet"), h("li", {}, h("i", { class: "dry" }), "nothing arrives"));
}

interface Grid { x: (depth: number) => number; y: (lane: number) => number; size: (signal: number | null) => number; at: (signal: number | null) => number }

function picture(river: RiverView, rows: string[], open: (row: number) => void): SVGElement {
  const depth = Math.max(...river.nodes.map((n) => n.depth), 1);
  const lanes = river.nodes.map((n) => n.lane);
  const arcs = river.edges.map((e) => rise(river, e));
  const room = Math.max(...arcs, 0);
  const top = 22 + Math.max(-Math.min(...lanes) * LANE, room);
  const longest = Math.max(...river.nodes.map((n) => Math.min(n.label.length, 16)));
  const tail = longest * 5; // the last name leans out to the right
  const gap = Math.min(Math.max((955 - tail) / depth, 14), 150);
  const height = top + Math.max(...lanes, 0) * LANE + 34 + longest * 4.4;
  const width = 35 + gap * depth + Math.max(tail, 35);
  const span = river.high - river.low || 1;
  const at = (s: number | null) => (s === null ? 0 : Math.min(Math.max((s - river.low) / span, 0), 1));
  const grid: Grid = { x: (d) => 35 + d * gap, y: (lane) => top + lane * LANE, at, size: (s) => 1.5 + at(s) * (WIDEST - 1.5) };
  const edges = river.edges.map((edge, i) => way(river, edge, arcs[i]!, grid));
  const nodes = river.nodes.map((node) => place(node, rows, open, grid));
  return svg("svg", { class: "river", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `Graph of ${river.nodes.length} places and ${river.edges.length} ways` },
    ...edges, ...labels(river, grid, gap), ...nodes);
}

/** How high an arc rises over what it skips; 0 for a way to the next place. */
function rise(river: RiverView, edge: RiverView["edges"][number]): number {
  const [a, b] = [river.nodes[edge.from]!, river.nodes[edge.to]!];
  const skipped = b.depth - a.depth;
  return skipped > 1 && a.lane === b.lane ? Math.min(26 + 9 * skipped, 110) : 0;
}

function way(river: RiverView, edge: RiverView["edges"][number], arc: number, grid: Grid): SVGElement {
  const [a, b] = [river.nodes[edge.from]!, river.nodes[edge.to]!];
  const [x0, y0, x1, y1] = [grid.x(a.depth), grid.y(a.lane), grid.x(b.depth), grid.y(b.lane)];
  const bend = (x1 - x0) * (arc ? 0.25 : 0.5);
  const path = `M${x0} ${y0} C${x0 + bend} ${y0 - arc * 1.33} ${x1 - bend} ${y1 - arc * 1.33} ${x1} ${y1}`;
  const line = svg("path", { d: path, class: `way${edge.signal === null ? ` way-${edge.mark ?? "zero"}` : ""}${arc ? " arc" : ""}`, "data-signal": edge.signal ?? edge.mark ?? "" });
  if (edge.signal !== null) {
    line.setAttribute("stroke", scale(grid.at(edge.signal)));
    line.setAttribute("stroke-width", String(Number(grid.size(edge.signal).toFixed(2))));
  }
  const told = edge.signal === null ? (edge.mark === "nan" ? "not a number" : "nothing arrives") : `${decades(edge.signal)} decades`;
  line.append(svg("title", {}, `${short(b.label, 60)} to ${short(a.label, 60)}: ${told}`));
  return line;
}

function place(node: RiverView["nodes"][number], rows: string[], open: (row: number) => void, grid: Grid): SVGElement {
  const row = node.rows.length ? rows.indexOf(node.rows[0]!) : -1;
  const told = node.signal === null ? "no finite signal" : `${decades(node.signal)} decades`;
  const name = `${short(node.label, 80)}: ${told}`;
  const dot = svg("circle", { cx: grid.x(node.depth), cy: grid.y(node.lane), r: node.kind === "layer" ? 5 : 3.5, class: `place place-${node.kind}` });
  dot.append(svg("title", {}, name));
  if (row < 0) return dot;
  const link = svg("g", { role: "button", tabindex: 0, class: "place-link", "aria-label": `Open ${name}` }, dot);
  link.addEventListener("click", () => open(row));
  link.addEventListener("keydown", (event) => {
    const key = (event as KeyboardEvent).key;
    if (key !== "Enter" && key !== " ") return;
    event.preventDefault();
    open(row);
  });
  return link;
}

/** Names below the main stream, slanted, as many as have room. */
function labels(river: RiverView, grid: Grid, gap: number): SVGElement[] {
  const below = Math.max(...river.nodes.map((n) => n.lane), 0);
  const y = grid.y(below) + 26;
  let free = -1e9;
  return river.nodes.flatMap((node) => {
    if (node.kind !== "layer" || node.lane !== 0) return [];
    const x = grid.x(node.depth);
    if (x - free < Math.max(18, Math.min(gap, 18))) return [];
    free = x;
    return [svg("text", { x, y, transform: `rotate(38 ${x} ${y})`, class: "river-name" }, short(node.label, 16))];
  });
}
