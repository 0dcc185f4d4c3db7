// The signal map: one canvas, drawn by hand, because a thousand layers by hundreds of steps must stay quick.

import { h, panel, short, spread, table } from "../dom";
import { decades, MARKS, plain } from "../format";
import { scale, scaleGradient, themed, tokens, type Tokens } from "../theme";
import type { Cell, SignalView } from "../types";
import { FONT } from "../charts";

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  row: number;
  column: number;
}

const HATCH = "#d6336c";

export function signalPanel(signal: SignalView): HTMLElement {
  const canvas = h("canvas", {
    class: "map",
    role: "img",
    tabindex: 0,
    "aria-label": `Map of the backprop signal, ${signal.rows.length} layers by ${signal.traced} traced steps. ${signal.summary} Arrow keys move from cell to cell.`,
  });
  const note = h("div", { class: "tip map-tip", hidden: true });
  const live = h("p", { class: "unseen", "aria-live": "polite" });
  const box = h("div", { class: "map-box" }, canvas, note);
  const section = panel("signal", "Signal map", caption(signal), box, live, legend(signal), numbers(signal));
  describe(section, signal);
  if (!signal.rows.length) {
    box.replaceChildren(h("p", { class: "empty" }, "No backward pass was traced, so there is no map."));
    return section;
  }
  new MapView(signal, canvas, note, live, section).start(box);
  return section;
}

function caption(signal: SignalView): string {
  return `How much of the learning signal reaches each layer, relative to the output layer. ${signal.summary}`;
}

function describe(section: HTMLElement, signal: SignalView): void {
  section.dataset.rows = String(signal.rows.length);
  section.dataset.columns = String(signal.steps.length);
  section.dataset.low = String(signal.low);
  section.dataset.high = String(signal.high);
  section.dataset.clipped = String(signal.clipped);
  section.dataset.nan = String(signal.counts.nan);
  section.dataset.zero = String(signal.counts.zero);
  section.dataset.unmeasured = String(signal.counts.unmeasured);
}

class MapView {
  private frame: Frame = { left: 0, top: 0, width: 0, height: 0, row: 1, column: 1 };
  private at: [number, number] | null = null;

  constructor(
    private readonly signal: SignalView,
    private readonly canvas: HTMLCanvasElement,
    private readonly note: HTMLElement,
    private readonly live: HTMLElement,
    private readonly section: HTMLElement,
  ) {}

  start(box: HTMLElement): void {
    new ResizeObserver(() => this.draw(tokens())).observe(box);
    themed((look) => this.draw(look));
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event.offsetX, event.offsetY));
    this.canvas.addEventListener("pointerleave", () => this.select(null));
    this.canvas.addEventListener("blur", () => this.select(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  private layout(): boolean {
    const width = this.canvas.parentElement?.clientWidth ?? 0;
    if (!width) return false;
    const rows = this.signal.rows.length;
    const longest = Math.max(...spread(rows, 200).map((i) => Math.min(this.signal.rows[i]!.length, 28)));
    const left = Math.min(Math.max(longest * 7.2 + 14, 48), Math.min(width * 0.3, 210));
    const row = Math.max(Math.min(520 / rows, 26), rows > 260 ? 760 / rows : 3);
    const columns = this.signal.steps.length;
    this.frame = { left, top: row < 12 ? 9 : 4, width: width - left - 2, height: row * rows, row, column: (width - left - 2) / columns };
    const ratio = Math.min(devicePixelRatio || 1, 3);
    const height = Math.ceil(this.frame.height + 48);
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.getContext("2d")?.setTransform(ratio, 0, 0, ratio, 0, 0);
    return true;
  }

  private draw(look: Tokens): void {
    if (!this.layout()) return;
    const pen = this.canvas.getContext("2d");
    if (!pen) return;
    this.cells(pen, look);
    this.rowNames(pen, look);
    this.stepNames(pen, look);
    if (this.at) this.outline(pen, look, this.at);
    this.section.dataset.drawn = "true";
    const { left, top, row, column } = this.frame;
    this.canvas.dataset.frame = JSON.stringify({ left, top, row, column });
  }

  private cells(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, row, column } = this.frame;
    const gap = Math.min(row, column) > 7 ? 1 : 0;
    const hatches = patterns(pen, look);
    const span = this.signal.high - this.signal.low || 1;
    this.signal.cells.forEach((cells, r) => {
      const [y0, y1] = [top + r * row, top + (r + 1) * row];
      cells.forEach((cell, c) => {
        pen.fillStyle = typeof cell === "number" ? scale((cell - this.signal.low) / span) : (hatches[cell] ?? look.line);
        // whole pixels, so that no seam shows between neighbours
        const [x0, x1] = [Math.round(left + c * column), Math.round(left + (c + 1) * column)];
        const [a, b] = row >= 2 ? [Math.round(y0), Math.round(y1)] : [y0, y1 + 0.5];
        pen.fillRect(x0, a, Math.max(x1 - x0 - gap, 1), Math.max(b - a - gap, 0.5));
      });
    });
  }

  private rowNames(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, row } = this.frame;
    const every = Math.max(Math.ceil(15 / row), 1);
    pen.font = `12px ${FONT}`;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillStyle = look.ink;
    this.signal.rows.forEach((name, r) => {
      if (r % every) return;
      let text = short(name, 28);
      for (let n = 27; n > 4 && pen.measureText(text).width > left - 12; n -= 1) text = short(name, n);
      pen.fillText(text, left - 10, top + (r + 0.5) * row);
    });
  }

  private stepNames(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, width, height, column } = this.frame;
    pen.fillStyle = look.soft;
    pen.textBaseline = "top";
    pen.textAlign = "center";
    const steps = this.signal.steps;
    const size = (c: number) => pen.measureText((steps[c] ?? 0).toLocaleString("en")).width;
    const final = steps.length - 1;
    // the last step has its name first, right under its column or flush with the edge
    const end = Math.min(left + (final + 0.5) * column, left + width - size(final) / 2 + 2);
    let free = left - 6;
    steps.forEach((step, c) => {
      const half = size(c) / 2;
      const x = c === final ? end : left + (c + 0.5) * column;
      if (c !== final && (x - half < free || x + half > end - size(final) / 2 - 14)) return;
      pen.fillText(step.toLocaleString("en"), x, top + height + 8);
      free = x + half + 14;
    });
    pen.fillText("traced step", left + width / 2, top + height + 28);
  }

  private outline(pen: CanvasRenderingContext2D, look: Tokens, [r, c]: [number, number]): void {
    const { left, top, row, column } = this.frame;
    pen.lineWidth = 2;
    pen.strokeStyle = look.ink;
    pen.strokeRect(left + c * column - 1, top + r * row - 1, Math.max(column, 3) + 1, Math.max(row, 3) + 1);
  }

  private point(x: number, y: number): void {
    const { left, top, row, column } = this.frame;
    const [r, c] = [Math.floor((y - top) / row), Math.floor((x - left) / column)];
    const inside = r >= 0 && c >= 0 && r < this.signal.rows.length && c < this.signal.steps.length;
    this.select(inside ? [r, c] : null);
  }

  private key(event: KeyboardEvent): void {
    const moves: Record<string, [number, number]> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    if (event.key === "Escape") this.select(null);
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const [r, c] = this.at ?? [0, this.signal.steps.length - 1 - move[1]];
    const clamp = (v: number, n: number) => Math.min(Math.max(v, 0), n - 1);
    this.select([clamp(r + (this.at ? move[0] : 0), this.signal.rows.length), clamp(c + move[1], this.signal.steps.length)]);
    this.live.textContent = this.note.textContent;
  }

  private select(at: [number, number] | null): void {
    if (at?.[0] === this.at?.[0] && at?.[1] === this.at?.[1]) return;
    this.at = at;
    this.draw(tokens());
    this.note.hidden = at === null;
    if (!at) return;
    const [r, c] = at;
    const cell = this.signal.cells[r]?.[c] ?? "unmeasured";
    this.note.replaceChildren(
      h("b", {}, short(this.signal.rows[r] ?? "", 48)),
      h("span", {}, h("em", {}, "step "), h("strong", {}, (this.signal.steps[c] ?? 0).toLocaleString("en"))),
      h("span", {}, h("em", {}, "signal "), h("strong", {}, told(cell))),
    );
    const { left, top, row, column } = this.frame;
    const x = left + (c + 0.5) * column;
    const wide = this.canvas.clientWidth;
    this.note.style.left = `${Math.min(Math.max(x - this.note.offsetWidth / 2, 0), wide - this.note.offsetWidth)}px`;
    const y = top + r * row - this.note.offsetHeight - 8;
    this.note.style.top = `${y < -30 ? top + (r + 1) * row + 8 : y}px`;
  }
}

/** A cell in words: "1.3e-7 of the output layer's, −6.9 decades". */
export function told(cell: Cell): string {
  if (typeof cell !== "number") return MARKS[cell] ?? cell;
  return `${plain(10 ** cell, 2)} of the output layer's, ${decades(cell)} decades`;
}

function patterns(pen: CanvasRenderingContext2D, look: Tokens): Record<string, CanvasPattern | string> {
  return {
    nan: pattern(pen, HATCH, (tile) => cross(tile, "#ffffff")),
    zero: pattern(pen, look.dark ? "#0a0a0c" : "#ffffff", (tile) => stripes(tile, look.dark ? "#c9c9d1" : "#3a3a44")),
    unmeasured: pattern(pen, look.dark ? "#2a2b31" : "#e9e7e1", (tile) => dot(tile, look.dark ? "#5b5c66" : "#a9a69c")),
  };
}

function pattern(pen: CanvasRenderingContext2D, ground: string, draw: (tile: CanvasRenderingContext2D) => void): CanvasPattern | string {
  const tile = h("canvas", { width: 8, height: 8 });
  const inner = tile.getContext("2d");
  if (!inner) return ground;
  inner.fillStyle = ground;
  inner.fillRect(0, 0, 8, 8);
  draw(inner);
  return pen.createPattern(tile, "repeat") ?? ground;
}

function lines(tile: CanvasRenderingContext2D, colour: string, width: number, ends: number[][]): void {
  tile.strokeStyle = colour;
  tile.lineWidth = width;
  tile.beginPath();
  for (const [x0, y0, x1, y1] of ends as [number, number, number, number][]) {
    tile.moveTo(x0, y0);
    tile.lineTo(x1, y1);
  }
  tile.stroke();
}

const cross = (tile: CanvasRenderingContext2D, colour: string) =>
  lines(tile, colour, 1.2, [[1.5, 1.5, 6.5, 6.5], [6.5, 1.5, 1.5, 6.5]]);
const stripes = (tile: CanvasRenderingContext2D, colour: string) =>
  lines(tile, colour, 1.6, [[-1, 9, 9, -1], [-5, 5, 5, -5], [3, 13, 13, 3]]);
const dot = (tile: CanvasRenderingContext2D, colour: string) => {
  tile.fillStyle = colour;
  tile.fillRect(3, 3, 2, 2);
};

function legend(signal: SignalView): HTMLElement {
  const bar = h("div", { class: "ramp", role: "img", "aria-label": `Colour scale from ${decades(signal.low)} to ${decades(signal.high)} decades` });
  bar.style.background = scaleGradient();
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) => h("span", {}, decades(signal.low + t * (signal.high - signal.low))));
  const swatches = (["nan", "zero", "unmeasured"] as const).map((mark) =>
    h("li", { class: "swatch" }, swatch(mark), MARKS[mark] ?? mark, h("small", {}, ` ${signal.counts[mark]}`)),
  );
  return h(
    "div",
    { class: "legend" },
    h("div", { class: "ramp-box" }, h("p", {}, "decades relative to the output layer"), bar, h("div", { class: "ramp-ticks" }, ...ticks)),
    h("ul", { class: "swatches" }, ...swatches),
    h("p", { class: "fine" }, small(signal)),
  );
}

function small(signal: SignalView): string {
  const measure = signal.gauge_free
    ? "Gradient norm times the spread of the layer's output, so rescaling a layer does not change it."
    : "Plain gradient norms: the spread of some layers' outputs is not known.";
  return signal.clipped ? `${measure} ${signal.clipped} cells lie outside of the scale and show its end colour.` : measure;
}

function swatch(mark: string): HTMLCanvasElement {
  const canvas = h("canvas", { width: 44, height: 28, "aria-hidden": "true" });
  themed((look) => {
    const pen = canvas.getContext("2d");
    if (!pen) return;
    pen.setTransform(2, 0, 0, 2, 0, 0);
    pen.fillStyle = patterns(pen, look)[mark] ?? look.line;
    pen.fillRect(0, 0, 22, 14);
  });
  return canvas;
}

function numbers(signal: SignalView): HTMLElement {
  const rows = signal.rows.map((name, r) => {
    const cells = signal.cells[r] ?? [];
    const values = cells.filter((c): c is number => typeof c === "number");
    const bad = cells.filter((c) => c === "nan" || c === "zero").length;
    return [
      short(name, 80),
      cell(cells[0]),
      cell(signal.profile[r]),
      values.length ? decades(values.reduce((a, b) => Math.min(a, b))) : "-",
      values.length ? decades(values.reduce((a, b) => Math.max(a, b))) : "-",
      String(bad),
    ];
  });
  return table("Signal by layer, in decades", ["Layer", "First", "Last", "Lowest", "Highest", "NaN or zero"], rows);
}

function cell(value: Cell | undefined): string {
  return typeof value === "number" ? decades(value) : MARKS[value ?? "unmeasured"] ?? "-";
}
