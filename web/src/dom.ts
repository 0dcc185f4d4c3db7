// Building the page. Data enters it by textContent and by attribute only, never as markup.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined>;

const SVG = "http://www.w3.org/2000/svg";

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

export function svg(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}

function fill(element: Element, attributes: Attributes, children: Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}

let count = 0;

export function uid(stem: string): string {
  count += 1;
  return `${stem}-${count}`;
}

/** A part of the page with its heading and one sentence that says what is to be seen. */
export function panel(name: string, title: string, caption: Child, ...children: Child[]): HTMLElement {
  const id = uid(name);
  return h(
    "section",
    { class: `panel panel-${name}`, "data-panel": name, "aria-labelledby": id },
    h("header", {}, h("h2", { id }, title), caption ? h("p", { class: "caption" }, caption) : null),
    ...children,
  );
}

/** The same numbers for those who read rather than look. */
export function table(caption: string, head: string[], rows: Child[][], label = "Show the numbers"): HTMLElement {
  const body = rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, cell))));
  return h(
    "details",
    { class: "numbers" },
    h("summary", {}, label),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
      h(
        "table",
        {},
        h("caption", { class: "unseen" }, caption),
        h("thead", {}, h("tr", {}, ...head.map((cell) => h("th", { scope: "col" }, cell)))),
        h("tbody", {}, ...body),
      ),
    ),
  );
}

/** A long name with its middle left out; both ends of a dotted path tell something. */
export function short(name: string, length: number): string {
  if (name.length <= length) return name;
  const head = Math.floor((length - 1) / 3);
  return `${name.slice(0, head)}\u2026${name.slice(name.length - (length - 1 - head))}`;
}

/** At most `limit` indices of 0..count-1, evenly spread. */
export function spread(total: number, limit: number): number[] {
  if (total <= limit) return Array.from({ length: total }, (_, i) => i);
  return [...new Set(Array.from({ length: limit }, (_, i) => Math.round((i * (total - 1)) / (limit - 1))))];
}

/** A sentence of Python's with its powers raised: "10^-9.3". A screen reader and a copy still have the sign. */
export function rich(text: string): Child[] {
  return text.split(/\b((?:10|e)\^-?\d+(?:\.\d+)?)/).map((part, i) => {
    if (i % 2 === 0) return part;
    const [base, power] = part.split("^") as [string, string];
    return h("span", {}, base, h("span", { class: "unseen" }, "^"), h("sup", {}, power.replace("-", "\u2212")));
  });
}
