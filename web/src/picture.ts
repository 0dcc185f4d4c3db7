// What of a map does not change under the pointer: cells, marks, names, brackets, and the strip of gains beside it.

import { FONT } from "./charts";
import { h, short } from "./dom";
import { decades } from "./format";
import type { Group, Line } from "./folds";
import { flatMarks, patterns } from "./patterns";
import { diverging, scale, scaleBytes, type Tokens } from "./theme";
import type { Cell, Num } from "./types";

export interface MapData {
  rows: string[];
  steps: number[];
  cells: Cell[][];
  low: number;
  high: number;
  gains?: Num[];
  skipped?: number[];
}

export interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  row: number;
  column: number;
  gains: number; // where the strip of gains begins, and how wide it is (0 = there is no room)
  strip: number;
  brackets: number;
}

export const BRACKET = 11; // pixels that one level of modules takes

export class Picture {
  constructor(
    private readonly data: MapData,
    private readonly groups: Group[],
    private readonly folded: Set<string>,
    private readonly apart: boolean, // whether the colours tell a difference
    private readonly lines: Line[],
    private readonly grid: Cell[][],
    private readonly frame: Frame,
  ) {}

  /** Draw all of it on a canvas of its own, at the size of the one that is shown. */
  on(width: number, height: number, look: Tokens): HTMLCanvasElement | null {
    const picture = h("canvas", { width, height });
    const pen = picture.getContext("2d");
    if (!pen) return null;
    const ratio = Math.min(devicePixelRatio || 1, 3);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.cells(pen, look);
    this.marks(pen, look);
    this.names(pen, look);
    this.brackets(pen, look);
    this.stepNames(pen, look);
    if (this.frame.strip) this.strip(pen, look);
    return picture;
  }

  private colour(look: Tokens): (at: number) => string {
    return this.apart ? (at) => diverging(at, look.dark) : scale;
  }

  private cells(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, width, height, row, column } = this.frame;
    const [wide, tall] = [this.data.steps.length, this.grid.length];
    const small = h("canvas", { width: wide, height: tall });
    const inner = small.getContext("2d");
    if (!inner || !wide) return;
    const image = inner.createImageData(wide, tall);
    const bytes = scaleBytes(this.colour(look));
    const flat = flatMarks(look);
    const span = this.data.high - this.data.low || 1;
    for (let r = 0; r < tall; r += 1) {
      for (let c = 0; c < wide; c += 1) {
        const cell = this.grid[r]![c] ?? "unmeasured";
        const to = (r * wide + c) * 4;
        if (typeof cell === "number") {
          const from = Math.round(Math.min(Math.max((cell - this.data.low) / span, 0), 1) * 255) * 4;
          for (let k = 0; k < 4; k += 1) image.data[to + k] = bytes[from + k]!;
        } else {
          const tone = flat[cell] ?? flat.unmeasured!;
          image.data.set([tone[0], tone[1], tone[2], 255], to);
        }
      }
    }
    inner.putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, left, top, width, height);
    if (Math.min(row, column) <= 7) return;
    pen.fillStyle = look.surface;
    for (let r = 1; r < tall; r += 1) pen.fillRect(left, Math.round(top + r * row) - 1, width, 1);
    for (let c = 1; c < wide; c += 1) pen.fillRect(Math.round(left + c * column) - 1, top, 1, height);
  }

  private marks(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, row, column, height } = this.frame;
    const kinds = patterns(pen, look);
    const gap = Math.min(row, column) > 7 ? 1 : 0;
    this.grid.forEach((cells, r) =>
      cells.forEach((cell, c) => {
        if (typeof cell === "number" || (cell === "unmeasured" && Math.min(row, column) < 4)) return;
        pen.fillStyle = kinds[cell] ?? look.line;
        const [x0, x1] = [Math.round(left + c * column), Math.round(left + (c + 1) * column)];
        // a cell that is thinner than a pixel is still seen
        const [y0, y1] = [Math.round(top + r * row), Math.round(top + (r + 1) * row)];
        pen.fillRect(x0, y0, Math.max(x1 - x0 - gap, 2), Math.max(y1 - y0 - gap, 2));
      }),
    );
    pen.strokeStyle = look.warning;
    pen.lineWidth = 1.5;
    for (const c of this.data.skipped ?? []) {
      const [x, y] = [left + (c + 0.5) * column, top + height + 4];
      pen.beginPath();
      pen.moveTo(x - 3, y - 2.5);
      pen.lineTo(x + 3, y + 2.5);
      pen.moveTo(x + 3, y - 2.5);
      pen.lineTo(x - 3, y + 2.5);
      pen.stroke();
    }
  }

  private names(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, row, brackets } = this.frame;
    const every = Math.max(Math.ceil(15 / row), 1);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    this.lines.forEach((line, r) => {
      if (r % every && !line.group) return;
      if (line.group && row < 11 && r % every) return;
      pen.font = `${line.group ? "600 " : ""}12px ${FONT}`;
      pen.fillStyle = look.ink;
      let text = short(line.label, 28);
      for (let n = 27; n > 4 && pen.measureText(text).width > left - brackets - 12; n -= 1) text = short(line.label, n);
      pen.fillText(text, left - 10, top + (r + 0.5) * row);
    });
  }

  private brackets(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { top, row } = this.frame;
    pen.lineWidth = 1.25;
    for (const { group, from, to, x } of this.spans()) {
      pen.strokeStyle = look.faint;
      pen.fillStyle = look.soft;
      const [a, b] = [top + from * row + 1, top + (to + 1) * row - 1];
      const middle = Math.min(a + Math.max(row / 2, 4), (a + b) / 2 + 4);
      pen.beginPath();
      if (this.folded.has(group.path)) {
        pen.moveTo(x + 1, middle - 4);
        pen.lineTo(x + 7, middle);
        pen.lineTo(x + 1, middle + 4);
        pen.fill();
        continue;
      }
      pen.moveTo(x, middle - 2);
      pen.lineTo(x + 8, middle - 2);
      pen.lineTo(x + 4, middle + 3);
      pen.fill();
      if (b - middle < 8) continue;
      pen.beginPath();
      pen.moveTo(x + 4, middle + 5);
      pen.lineTo(x + 4, b);
      pen.lineTo(x + 8, b);
      pen.stroke();
    }
  }

  /** The groups whose bracket is on the picture, with the lines they span. */
  spans(): { group: Group; from: number; to: number; x: number }[] {
    const shut = this.groups.filter((g) => this.folded.has(g.path));
    const firstLine = new Map(this.lines.map((l, i) => [l.first, i]));
    const lastLine = new Map(this.lines.map((l, i) => [l.last, i]));
    return this.groups.flatMap((group) => {
      if (shut.some((s) => s !== group && s.first <= group.first && group.last <= s.last && s.level < group.level)) return [];
      const [from, to] = [firstLine.get(group.first), lastLine.get(group.last)];
      return from === undefined || to === undefined ? [] : [{ group, from, to, x: group.level * BRACKET }];
    });
  }

  private stepNames(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { left, top, width, height, column } = this.frame;
    pen.font = `12px ${FONT}`;
    pen.fillStyle = look.soft;
    pen.textBaseline = "top";
    pen.textAlign = "center";
    const steps = this.data.steps;
    const size = (c: number) => pen.measureText((steps[c] ?? 0).toLocaleString("en")).width;
    const final = steps.length - 1;
    // the last step has its name first, right under its column or flush with the edge
    const end = Math.min(left + (final + 0.5) * column, left + width - size(final) / 2 + 2);
    let free = left - 6;
    steps.forEach((step, c) => {
      const half = size(c) / 2;
      const x = c === final ? end : left + (c + 0.5) * column;
      if (c !== final && (x - half < free || x + half > end - size(final) / 2 - 14)) return;
      pen.fillText(step.toLocaleString("en"), x, top + height + 9);
      free = x + half + 14;
    });
    pen.fillText("traced step", left + width / 2, top + height + 28);
  }

  /** Beside the map: how many decades the signal gains or loses on its way into each layer. */
  private strip(pen: CanvasRenderingContext2D, look: Tokens): void {
    const { gains: x0, strip, top, height, row } = this.frame;
    const values = this.lines.map((l) => this.gain(l));
    const most = Math.max(...values.map((v) => Math.abs(v ?? 0)), 0.5);
    const signed = values.some((v) => (v ?? 0) > 0.05 * most);
    const zero = signed ? x0 + strip * 0.62 : x0 + strip - 34;
    const reach = (side: number) => Math.max(...values.map((v) => side * (v ?? 0)), 1e-9);
    // one unit on both sides, so that a gain and a loss of a decade are equally long
    const unit = signed ? Math.min((strip * 0.62 - 2) / reach(-1), (strip * 0.38 - 2) / reach(1)) : (strip - 36) / most;
    pen.font = `12px ${FONT}`;
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    pen.fillStyle = look.soft;
    const title = row >= 11 ? "gain per layer, decades" : `gain per layer, up to ${most.toFixed(1)}`;
    pen.fillText(pen.measureText(title).width > strip ? "gain, decades" : title, x0 - 4, 13);
    pen.fillStyle = look.line;
    pen.fillRect(zero, top, 1, height);
    pen.textBaseline = "middle";
    const named = row >= 11; // thinner bars would be written over
    values.forEach((v, r) => {
      if (v === null) return;
      const y = top + r * row;
      const tall = Math.max(row - (row > 5 ? 4 : 0), 1);
      pen.fillStyle = v < 0 ? look.critical : look.accent;
      pen.globalAlpha = 0.75;
      const wide = Math.min(Math.max(Math.abs(v) * unit, 1), v > 0 ? x0 + strip - zero : strip);
      pen.fillRect(v < 0 ? zero - wide : zero, y + (row > 5 ? 2 : 0), wide, tall);
      pen.globalAlpha = 1;
      if (!named) return;
      pen.fillStyle = look.soft;
      pen.textAlign = v < 0 ? "left" : "right";
      pen.fillText(decades(v), v < 0 ? zero + 5 : zero - 5, y + row / 2);
    });
  }

  /** Of a folded module: what all of its layers take together, where each is known. */
  gain(line: Line): number | null {
    const parts = (this.data.gains ?? []).slice(line.first, line.last + 1);
    const known = parts.filter((v): v is number => v !== null && v !== undefined);
    return known.length === parts.length && parts.length ? known.reduce((a, b) => a + b, 0) : null;
  }
}
