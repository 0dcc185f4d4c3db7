// Light, dark and print: one set of tokens in the style sheet, read here for what is drawn on canvas.

export interface Tokens {
  ink: string;
  soft: string;
  faint: string;
  line: string;
  surface: string;
  accent: string;
  band: string;
  critical: string;
  warning: string;
  note: string;
  good: string;
  dark: boolean;
}

type Draw = (tokens: Tokens) => void;
let draws: Draw[] = [];
const KEY = "unvanish-theme";

export function tokens(): Tokens {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: read("ink"),
    soft: read("soft"),
    faint: read("faint"),
    line: read("line"),
    surface: read("surface"),
    accent: read("accent"),
    band: read("band"),
    critical: read("critical"),
    warning: read("warning"),
    note: read("note"),
    good: read("good"),
    dark: read("is-dark") === "1",
  };
}

/** Draw now, and again whenever the theme changes or the page is printed. */
export function themed(draw: Draw): void {
  draws.push(draw);
  draw(tokens());
}

/** Forget what was drawn before: the page is about to be built anew. */
export function forget(): void {
  draws = [];
}

function redraw(): void {
  const now = tokens();
  for (const draw of draws) draw(now);
}

function stored(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a page from file:// or in a sandbox may have no storage
  }
}

function set(theme: string): void {
  document.documentElement.dataset.theme = theme;
  redraw();
}

export function startTheme(): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  set(stored() ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => stored() ?? set(system.matches ? "dark" : "light"));
  let before = "light";
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme ?? "light";
    set("light");
  });
  addEventListener("afterprint", () => set(before));
}

export function toggleTheme(): string {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // not kept then
  }
  set(next);
  return next;
}

// viridis at 0, 1/10 .. 1: even in lightness, and safe for every kind of colour blindness
const VIRIDIS: [number, number, number][] = [
  [68, 1, 84],
  [72, 36, 117],
  [65, 68, 135],
  [53, 95, 141],
  [42, 120, 142],
  [33, 145, 140],
  [34, 168, 132],
  [68, 191, 112],
  [122, 209, 81],
  [189, 223, 38],
  [253, 231, 37],
];

/** The colour at 0..1 of the scale. */
export function scale(at: number): string {
  const x = Math.min(Math.max(at, 0), 1) * (VIRIDIS.length - 1);
  const i = Math.min(Math.floor(x), VIRIDIS.length - 2);
  const [a, b] = [VIRIDIS[i]!, VIRIDIS[i + 1]!];
  const mix = (k: 0 | 1 | 2) => Math.round(a[k] + (b[k] - a[k]) * (x - i));
  return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
}

/** The same for every 256th of the scale, as bytes: for pictures of many cells. */
export function scaleBytes(colour: (at: number) => string): Uint8ClampedArray {
  const bytes = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i += 1) {
    const [r, g, b] = colour(i / 255).match(/\d+/g)!.map(Number) as [number, number, number];
    bytes.set([r, g, b, 255], i * 4);
  }
  return bytes;
}

// less, the same, more: blue and orange are told apart by every eye, and the middle is the paper
const LESS: [number, number, number] = [33, 92, 160];
const MORE: [number, number, number] = [190, 92, 10];

export function diverging(at: number, dark: boolean): string {
  const x = Math.min(Math.max(at, 0), 1) * 2 - 1;
  const middle = dark ? [44, 44, 52] : [244, 242, 236];
  const end = x < 0 ? LESS : MORE;
  const mix = (k: 0 | 1 | 2) => Math.round(middle[k]! + (end[k] - middle[k]!) * Math.abs(x) ** 0.8);
  return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
}

export function divergingGradient(dark: boolean): string {
  return `linear-gradient(90deg, ${Array.from({ length: 11 }, (_, i) => diverging(i / 10, dark)).join(", ")})`;
}

export function scaleGradient(): string {
  return `linear-gradient(90deg, ${VIRIDIS.map((_, i) => scale(i / (VIRIDIS.length - 1))).join(", ")})`;
}

// Okabe and Ito's colours, the ones that stand out on light and on dark
export const SERIES = ["#0f8f74", "#2f7fd1", "#d98200", "#b8568f", "#6c62c9", "#c2512d", "#4b9fb8", "#8a8f2a"];
