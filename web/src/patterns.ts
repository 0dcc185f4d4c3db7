// The marks of what is no number: told apart by their pattern, not by colour alone.

import { h } from "./dom";
import type { Tokens } from "./theme";

const HATCH = "#d6336c";

export type Patterns = Record<string, CanvasPattern | string>;

export function patterns(pen: CanvasRenderingContext2D, look: Tokens): Patterns {
  return {
    nan: pattern(pen, HATCH, (tile) => cross(tile, "#ffffff")),
    zero: pattern(pen, look.dark ? "#0a0a0c" : "#ffffff", (tile) => stripes(tile, look.dark ? "#c9c9d1" : "#3a3a44")),
    unmeasured: pattern(pen, look.dark ? "#2a2b31" : "#e9e7e1", (tile) => dot(tile, look.dark ? "#5b5c66" : "#a9a69c")),
  };
}

/** The same as plain colours, for cells too small for a pattern. */
export function flatMarks(look: Tokens): Record<string, [number, number, number]> {
  return {
    nan: [214, 51, 108],
    zero: look.dark ? [140, 140, 150] : [150, 150, 158],
    unmeasured: look.dark ? [42, 43, 49] : [233, 231, 225],
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
