// A map of layers by steps: one canvas, drawn by hand, because a thousand layers by hundreds of steps must stay quick.

import { h, short, spread } from "./dom";
import { decades, MARKS, plain } from "./format";
import { dragged } from "./charts";
import { groupsOf, linesOf, type Group, type Line } from "./folds";
import { BRACKET, Picture, type Frame, type MapData } from "./picture";
import { themed, tokens, type Tokens } from "./theme";
import type { Cell } from "./types";

export interface MapOptions {
  label: string;
  folded: Set<string>;
  diverging?: boolean;
  told: (cell: Cell) => string;
  open?: (row: number) => void;
  drawn?: () => void;
  zoom?: (from: number, to: number) => void; // the steps that were dragged over
}

const RANK: Record<string, number> = { nan: 3, zero: 2 };
const FULL = 520;
const TALLEST = 2400;

/** The worst of several cells, so that what is folded hides nothing: NaN, then zero, then the least signal. */
export function worst(cells: Cell[], farthest = false): Cell {
  let found: Cell = "unmeasured";
  for (const cell of cells) {
    if (typeof cell !== "number") {
      if ((RANK[cell] ?? 0) > (typeof found === "number" ? 0 : (RANK[found] ?? -1))) found = cell;
    } else if (found === "unmeasured" || (typeof found === "number" && (farthest ? Math.abs(cell) > Math.abs(found) : cell < found))) found = cell;
  }
  return found;
}

export class SignalMap {
  readonly canvas: HTMLCanvasElement;
  readonly box: HTMLElement;
  readonly groups: Group[];
  private readonly note = h("div", { class: "tip map-tip", hidden: true });
  // an element of its own: moving it costs nothing, painting the map anew would
  private readonly cursor = h("i", { class: "map-cursor", "aria-hidden": "true", hidden: true });
  private readonly live = h("p", { class: "unseen", "aria-live": "polite" });
  private drawing: Picture | null = null;
  private picture: HTMLCanvasElement | null = null;
  private lines: Line[] = [];
  private grid: Cell[][] = [];
  private frame: Frame = { left: 0, top: 0, width: 0, height: 0, row: 1, column: 1, gains: 0, strip: 0, brackets: 0 };
  private at: [number, number] | null = null;
  private opened: number | null = null;
  private pending: [number, number] | null = null;

  constructor(private data: MapData, private readonly options: MapOptions) {
    this.canvas = h("canvas", { class: "map", role: "application", tabindex: 0, "aria-label": options.label, "aria-roledescription": "map" });
    this.box = h("div", { class: "map-box" }, this.canvas, this.cursor, this.note, this.live);
    this.groups = groupsOf(data.rows);
    this.reline();
    new ResizeObserver(() => this.redraw()).observe(this.box);
    themed(() => this.redraw());
    this.canvas.addEventListener("pointermove", (event) => this.moved(event.offsetX, event.offsetY));
    this.canvas.addEventListener("pointerleave", () => {
      this.pending = null;
      this.select(null);
    });
    const zoom = options.zoom;
    if (zoom) {
      dragged(this.box, (x) => {
        const column = (x - this.frame.left) / this.frame.column;
        return column < 0 ? (column < -0.5 ? null : 0) : column > this.data.steps.length + 0.5 ? null : column;
      }, (a, b) => zoom(this.data.steps[this.column(Math.min(a, b))] ?? 0, this.data.steps[this.column(Math.max(a, b))] ?? 0));
    }
    this.canvas.addEventListener("blur", () => this.select(null));
    this.canvas.addEventListener("click", (event) => this.click(event.offsetX, event.offsetY));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Mark the row whose layer is open (null: none). */
  mark(row: number | null): void {
    this.opened = row;
    this.paint(tokens());
  }

  /** Unfold what hides a row, bring it into view and put the pointer on it. */
  show(row: number, step: number): void {
    for (const g of this.groups) if (g.first <= row && row <= g.last) this.options.folded.delete(g.path);
    this.refold();
    const steps = this.data.steps;
    const column = Math.max(steps.filter((s) => s <= step).length - 1, 0);
    const line = this.lines.findIndex((l) => l.first <= row && row <= l.last);
    this.canvas.focus({ preventScroll: true });
    this.select([line, column]);
    this.live.textContent = this.note.textContent;
  }

  /** Show other steps of the same rows. */
  window(part: { steps: number[]; cells: Cell[][]; skipped: number[] }): void {
    if (part.steps === this.data.steps) return;
    this.data = { ...this.data, ...part };
    this.refold();
  }

  foldAll(folded: boolean): void {
    this.options.folded.clear();
    if (folded) for (const g of this.groups) if (g.level === 0) this.options.folded.add(g.path);
    this.refold();
  }

  private refold(): void {
    this.at = null;
    this.note.hidden = true;
    this.cursor.hidden = true;
    this.reline();
    this.redraw();
  }

  private reline(): void {
    this.lines = linesOf(this.data.rows, this.groups, this.options.folded);
    const wide = this.data.steps.length;
    this.grid = this.lines.map((line) =>
      line.first === line.last
        ? (this.data.cells[line.first] ?? [])
        : Array.from({ length: wide }, (_, c) => worst(this.data.cells.slice(line.first, line.last + 1).map((r) => r[c] ?? "unmeasured"), this.options.diverging)),
    );
    this.canvas.dataset.lines = String(this.lines.length);
  }

  private redraw(): void {
    if (!this.layout()) return;
    const look = tokens();
    this.drawing = new Picture(this.data, this.groups, this.options.folded, this.options.diverging ?? false, this.lines, this.grid, this.frame);
    this.picture = this.drawing.on(this.canvas.width, this.canvas.height, look);
    this.paint(look);
    this.options.drawn?.();
  }

  private layout(): boolean {
    const width = this.box.clientWidth;
    if (!width || !this.lines.length) return false;
    const count = this.lines.length;
    const longest = Math.max(...spread(count, 200).map((i) => Math.min(this.lines[i]!.label.length, 28)));
    const levels = this.groups.length ? Math.max(...this.groups.map((g) => g.level)) + 1 : 0;
    const brackets = levels * BRACKET;
    const names = Math.min(Math.max(longest * 7.2 + 14, 48), Math.min(width * 0.3, 210));
    const left = names + brackets;
    const row = Math.max(Math.min(FULL / count, 26), Math.min(TALLEST / count, count > 260 ? 1 : 3));
    const strip = this.data.gains && width > 620 ? Math.min(150, width * 0.16) : 0;
    const wide = width - left - 2 - (strip ? strip + 22 : 0);
    const top = strip ? 24 : count < 12 ? 9 : 4;
    this.frame = { left, top, width: wide, height: row * count, row, column: wide / Math.max(this.data.steps.length, 1), gains: left + wide + 22, strip, brackets };
    const ratio = Math.min(devicePixelRatio || 1, 3);
    const height = Math.ceil(this.frame.height + top + 46);
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.getContext("2d")?.setTransform(ratio, 0, 0, ratio, 0, 0);
    return true;
  }

  private paint(look: Tokens): void {
    const pen = this.canvas.getContext("2d");
    if (!pen || !this.picture) return;
    pen.save();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.picture, 0, 0);
    pen.restore();
    const { left, top, width, row, column } = this.frame;
    pen.strokeStyle = look.ink;
    if (this.opened !== null) {
      const line = this.lines.findIndex((l) => l.first <= this.opened! && this.opened! <= l.last);
      if (line >= 0) {
        pen.lineWidth = 1.5;
        pen.strokeRect(left - 1, top + line * row - 1, width + 2, Math.max(row, 3) + 1);
        pen.fillStyle = look.ink;
        pen.fillRect(left - 6, top + line * row, 3, Math.max(row - 1, 3));
      }
    }
    this.canvas.dataset.frame = JSON.stringify({ left, top, row, column });
  }

  /** A pointer may move many times between two frames; only where it is at the frame counts. */
  private moved(x: number, y: number): void {
    if (!this.pending) {
      requestAnimationFrame(() => {
        const to = this.pending;
        this.pending = null;
        if (to) this.point(...to);
      });
    }
    this.pending = [x, y];
  }

  private column(at: number): number {
    return Math.min(Math.max(Math.floor(at), 0), this.data.steps.length - 1);
  }

  private lineAt(y: number): number {
    return Math.floor((y - this.frame.top) / this.frame.row);
  }

  private point(x: number, y: number): void {
    const { left, column } = this.frame;
    const [r, c] = [this.lineAt(y), Math.floor((x - left) / column)];
    const inside = r >= 0 && r < this.lines.length;
    this.canvas.style.cursor = inside && (this.options.open || this.bracket(x, y)) ? "pointer" : "default";
    this.select(inside && c >= 0 && c < this.data.steps.length ? [r, c] : null);
  }

  private bracket(x: number, y: number): Group | null {
    if (x > this.frame.brackets) return null;
    const r = this.lineAt(y);
    const hit = this.drawing?.spans().find((b) => b.from <= r && r <= b.to && x >= b.x && x < b.x + BRACKET);
    return hit?.group ?? null;
  }

  private click(x: number, y: number): void {
    const line = this.lines[this.lineAt(y)];
    if (!line || this.box.dataset.dragged === "yes") return;
    const group = this.bracket(x, y) ?? line.group;
    if (group) this.toggle(group);
    else this.options.open?.(line.first);
  }

  private toggle(group: Group): void {
    if (!this.options.folded.delete(group.path)) this.options.folded.add(group.path);
    this.refold();
  }

  private key(event: KeyboardEvent): void {
    const moves: Record<string, [number, number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      PageUp: [-10, 0], PageDown: [10, 0], Home: [-1e9, 0], End: [1e9, 0] };
    if (event.key === "Escape") this.select(null);
    const line = this.at ? this.lines[this.at[0]] : undefined;
    if (line && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      this.act(line, event.key === " ");
      return;
    }
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const [r, c] = this.at ?? [0, this.data.steps.length - 1 - move[1]];
    const clamp = (v: number, n: number) => Math.min(Math.max(v, 0), n - 1);
    this.select([clamp(r + (this.at ? move[0] : 0), this.lines.length), clamp(c + move[1], this.data.steps.length)]);
    this.live.textContent = this.note.textContent;
  }

  /** Enter opens the layer, or the folded module; Space folds the module that the row is in, or unfolds it. */
  private act(line: Line, fold: boolean): void {
    const around = this.groups.filter((g) => g.first <= line.first && line.last <= g.last).sort((a, b) => b.level - a.level)[0];
    const column = this.at?.[1] ?? 0;
    const group = line.group ?? (fold ? around : undefined);
    if (!group) {
      if (!fold) this.options.open?.(line.first);
      return;
    }
    this.toggle(group);
    this.select([Math.max(this.lines.findIndex((l) => l.first <= group.first && group.first <= l.last), 0), column]);
    this.live.textContent = `${group.label} ${this.options.folded.has(group.path) ? "folded" : "unfolded"}`;
  }

  private select(at: [number, number] | null): void {
    if (at?.[0] === this.at?.[0] && at?.[1] === this.at?.[1]) return;
    this.at = at;
    this.cursor.hidden = at === null;
    this.note.hidden = at === null;
    if (at) this.tell(at);
  }

  private tell([r, c]: [number, number]): void {
    const line = this.lines[r]!;
    const cell = this.grid[r]?.[c] ?? "unmeasured";
    const gain = this.drawing?.gain(line) ?? null;
    const skipped = this.data.skipped?.includes(c);
    this.note.replaceChildren(
      h("b", {}, short(line.label, 48)),
      h("span", {}, h("em", {}, "step "), h("strong", {}, (this.data.steps[c] ?? 0).toLocaleString("en"))),
      h("span", {}, h("em", {}, line.group ? "worst inside " : this.options.diverging ? "difference " : "signal "), h("strong", {}, this.options.told(cell))),
      gain === null ? "" : h("span", {}, h("em", {}, "gain here "), h("strong", {}, `${plain(10 ** gain, 2)}, ${decades(gain)} decades`)),
      skipped ? h("span", {}, h("em", {}, "no weight was changed at this step")) : "",
    );
    const { left, top, width, row, column } = this.frame;
    this.cursor.style.transform = `translate(${left + c * column - 2}px, ${top + r * row - 2}px)`;
    this.cursor.style.width = `${Math.max(column, 3) + 3}px`;
    this.cursor.style.height = `${Math.max(row, 3) + 3}px`;
    const x = left + (c + 0.5) * column;
    const [wide, tall] = [this.note.offsetWidth, this.note.offsetHeight];
    const y = top + r * row - tall - 8;
    const across = Math.min(Math.max(x - wide / 2, 0), Math.max(left + width - wide, 0));
    this.note.style.transform = `translate(${across}px, ${y < -30 ? top + (r + 1) * row + 8 : y}px)`;
  }
}

/** A cell in words: "1.3e-7 of the output layer's, −6.9 decades". */
export function told(cell: Cell): string {
  if (typeof cell !== "number") return MARKS[cell] ?? cell;
  return `${plain(10 ** cell, 2)} of the output layer's, ${decades(cell)} decades`;
}
