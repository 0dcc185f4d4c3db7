// What the reader has chosen. It outlives a redraw, so that a live page does not jump under one's hands.

export interface ModelState {
  folded: Set<string>;
  layer: string | null;
  chain: string | null;
  weights: Map<number, string>;
  window: [number, number] | null; // the steps that are looked at more closely
}

const states = new Map<string, ModelState>();

export function stateOf(model: string): ModelState {
  let state = states.get(model);
  if (!state) {
    state = { folded: new Set(), layer: null, chain: null, weights: new Map(), window: null };
    states.set(model, state);
  }
  return state;
}

/** `served`: where a server gives some steps of this run as they were recorded; null in a file. */
export const page = { tab: "run" as "run" | "lab", served: null as string | null };

/** The place of what has the focus, and which details are open, by their order on the page. */
export interface Hold {
  scroll: number;
  focus: string | null;
  open: Set<string>;
}

function path(element: Element, root: Element): string {
  const steps: string[] = [];
  for (let at: Element | null = element; at && at !== root; at = at.parentElement) {
    const siblings = at.parentElement ? [...at.parentElement.children] : [at];
    steps.unshift(String(siblings.indexOf(at)));
  }
  return steps.join("/");
}

function find(where: string, root: Element): HTMLElement | null {
  let at: Element | undefined = root;
  for (const step of where.split("/")) at = at?.children[Number(step)];
  return at instanceof HTMLElement ? at : null;
}

export function hold(root: HTMLElement): Hold {
  const active = document.activeElement;
  return {
    scroll: scrollY,
    focus: active && root.contains(active) && active !== root ? path(active, root) : null,
    open: new Set([...root.querySelectorAll("details[open]")].map((d) => path(d, root))),
  };
}

export function restore(root: HTMLElement, held: Hold): void {
  for (const where of held.open) find(where, root)?.setAttribute("open", "");
  if (held.focus) find(held.focus, root)?.focus({ preventScroll: true });
  scrollTo({ top: held.scroll, behavior: "instant" });
}
