// The chain rule with its numbers: who took how many decades on the way from the output to one parameter.

import { h, panel, short, table, uid } from "../dom";
import { decades } from "../format";
import type { ChainRow, ChainView } from "../types";

const KINDS: Record<string, string> = {
  activation: "activation",
  weight: "weight",
  norm: "normalisation",
  skip: "skip connection",
  softmax: "softmax",
  shape: "reshaping",
  other: "other",
  loss: "loss",
  several: "several together",
};

export function chainPanel(chains: ChainView[]): HTMLElement {
  const body = h("div", { class: "chain" });
  const section = panel("chain", "The product of factors", "The chain rule, measured: each row is one factor of the product, in decades (powers of ten). Left is less signal.");
  if (!chains.length) {
    section.append(h("p", { class: "empty" }, "No backward pass was traced, so there is no product to show."));
    section.dataset.chains = "0";
    return section;
  }
  section.dataset.chains = String(chains.length);
  const show = (i: number) => {
    const chain = chains[i];
    if (!chain) return;
    section.dataset.parameter = chain.parameter;
    section.dataset.total = String(chain.total ?? "zero");
    section.dataset.rows = String(chain.rows.length);
    body.replaceChildren(...story(chain));
  };
  if (chains.length > 1) section.append(picker(chains, show));
  section.append(body);
  show(0);
  return section;
}

function picker(chains: ChainView[], show: (i: number) => void): HTMLElement {
  const id = uid("pick");
  const select = h("select", { id }, ...chains.map((c, i) => h("option", { value: i }, short(c.parameter, 60))));
  select.addEventListener("change", () => show(Number(select.value)));
  return h("p", { class: "picker" }, h("label", { for: id }, "Down to "), select);
}

function story(chain: ChainView): Node[] {
  return [
    h("p", { class: "lead" }, chain.sentence),
    attribution(chain),
    keys(chain),
    waterfall(chain),
    ends(chain),
    table(
      `Factors from ${chain.output_layer} to ${chain.parameter}`,
      ["Factor", "Kind", "Gain", "Decades", "Predicted decades", "So far"],
      chain.rows.map((r) => [short(r.label, 80), KINDS[r.kind] ?? r.kind, r.gain, r.text, decades(r.predicted), r.mark ? "0" : decades(r.to)]),
    ),
  ];
}

function attribution(chain: ChainView): HTMLElement {
  const total = chain.attribution.reduce((sum, part) => sum + Math.abs(part.decades ?? 0), 0) || 1;
  const list = h("ul", { class: "shares" });
  for (const part of chain.attribution) {
    const bar = h("i", { class: `kind-${part.part}` });
    bar.style.width = `${(100 * Math.abs(part.decades ?? 0)) / total}%`;
    list.append(
      h("li", { "data-part": part.part, "data-decades": part.decades ?? "lost" },
        h("span", {}, part.label), h("span", { class: "share-track" }, bar), h("strong", {}, part.text)),
    );
  }
  return list;
}

function keys(chain: ChainView): HTMLElement {
  const kinds = [...new Set(chain.rows.map((r) => r.kind))];
  const list = h("ul", { class: "keys", "aria-label": "Colours" });
  for (const kind of kinds) list.append(h("li", {}, h("i", { class: `kind-${kind}` }), KINDS[kind] ?? kind));
  if (chain.rows.some((r) => r.predicted !== null)) {
    list.append(h("li", {}, h("i", { class: "tick" }), "what theory predicts for this factor"));
  }
  return list;
}

function waterfall(chain: ChainView): HTMLElement {
  const reach = chain.rows.flatMap((r) => [r.to, r.from !== null && r.predicted !== null ? r.from + r.predicted : null]);
  const low = Math.min(chain.low ?? 0, ...reach.filter((v): v is number => v !== null), -0.5);
  const high = Math.max(chain.high ?? 0, ...reach.filter((v): v is number => v !== null), 0.1);
  const place = (v: number) => (100 * (v - low)) / (high - low);
  const list = h("ol", { class: "fall" });
  list.append(scaleRow(low, high, place));
  for (const row of chain.rows) list.append(fallRow(row, place));
  return list;
}

function scaleRow(low: number, high: number, place: (v: number) => number): HTMLElement {
  const track = h("span", { class: "track" });
  const step = [0.5, 1, 2, 5, 10, 20, 50, 100].find((s) => (high - low) / s <= 7) ?? 200;
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) {
    const tick = h("i", { class: "grid" }, decades(v).replace(/\.0$/, ""));
    tick.style.left = `${place(v)}%`;
    track.append(tick);
  }
  return h("li", { class: "fall-scale", "aria-hidden": "true" }, h("span", {}), track, h("span", {}, "decades"));
}

function fallRow(row: ChainRow, place: (v: number) => number): HTMLElement {
  const track = h("span", { class: "track", "aria-hidden": "true" });
  if (row.from !== null && row.to !== null) {
    const [a, b] = [place(Math.min(row.from, row.to)), place(Math.max(row.from, row.to))];
    const bar = h("i", { class: `bar kind-${row.kind}` });
    bar.style.left = `${a}%`;
    bar.style.width = `${Math.max(b - a, 0.25)}%`;
    track.append(bar);
    if (row.predicted !== null) {
      const tick = h("i", { class: "tick" });
      tick.style.left = `${place(row.from + row.predicted)}%`;
      track.append(tick);
    }
  } else if (row.from !== null) {
    track.append(h("i", { class: "stop" }, row.mark === "nan" ? "not a number from here on" : "nothing passes from here on"));
  }
  const predicted = row.predicted === null ? "" : `, predicted ${decades(row.predicted)}`;
  return h(
    "li",
    { "data-kind": row.kind, "data-decades": row.decades ?? row.mark ?? "", title: `${row.label}: gain ${row.gain}, ${row.text} decades${predicted}` },
    h("span", { class: "fall-name" }, short(row.label, 44)),
    track,
    h("span", { class: "fall-value" }, row.text),
  );
}

function ends(chain: ChainView): HTMLElement {
  const step = (name: string, value: string) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h(
    "dl",
    { class: "ends" },
    step("signal at the output", chain.ends.output_norm),
    step(`signal at ${short(chain.place, 30)}`, chain.ends.signal_norm),
    step("times its input", chain.ends.last_factor),
    step(`gradient of ${short(chain.parameter, 36)}`, chain.ends.gradient_norm),
  );
}
