// The chain rule with its numbers: who took how many decades on the way from the output to one parameter.

import { chart, tip, valueAxis } from "../charts";
import { h, panel, short, table, uid } from "../dom";
import { decades } from "../format";
import type { ModelState } from "../state";
import type { ChainRow, ChainView, ForkView, RecurrenceView } from "../types";

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

export function chainPanel(chains: ChainView[], state: ModelState): HTMLElement {
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
    state.chain = chain.parameter;
    section.dataset.parameter = chain.parameter;
    section.dataset.total = String(chain.total ?? "zero");
    section.dataset.rows = String(chain.rows.length);
    body.replaceChildren(...story(chain));
  };
  const kept = Math.max(chains.findIndex((c) => c.parameter === state.chain), 0);
  if (chains.length > 1) section.append(picker(chains, kept, show));
  section.append(body);
  show(kept);
  return section;
}

function picker(chains: ChainView[], kept: number, show: (i: number) => void): HTMLElement {
  const id = uid("pick");
  const select = h("select", { id }, ...chains.map((c, i) => h("option", { value: i, selected: i === kept }, `${short(c.parameter, 60)}  (${c.total_text})`)));
  select.addEventListener("change", () => show(Number(select.value)));
  return h("p", { class: "picker" }, h("label", { for: id }, "Down to "), select);
}

function story(chain: ChainView): Node[] {
  if (!chain.rows.length) return [h("p", { class: "lead" }, lone(chain)), ends(chain), ...forks(chain), ...recurrences(chain)];
  return [
    h("p", { class: "lead" }, chain.sentence),
    attribution(chain),
    keys(chain),
    fall(chain.rows, chain.low, chain.high),
    ends(chain),
    ...forks(chain),
    ...recurrences(chain),
    table(
      `Factors from ${chain.output_layer} to ${chain.parameter}`,
      ["Factor", "Kind", "Gain", "Decades", "Predicted decades", "So far"],
      chain.rows.map((r) => [short(r.label, 80), KINDS[r.kind] ?? r.kind, r.gain, r.text, decades(r.predicted), r.mark ? "0" : decades(r.to)]),
    ),
  ];
}

/** A chain without factors: the parameter sits right at the output. */
function lone(chain: ChainView): string {
  return `${short(chain.parameter, 60)} sits in the output layer itself: nothing lies between it and the loss, so there is no product. Its gradient is what the loss hands over, ${chain.ends.output_norm}, times its input, ${chain.ends.last_factor}.`;
}

function forks(chain: ChainView): Node[] {
  if (!chain.forks.length) return [];
  const more = chain.more_forks ? ` ${chain.more_forks} more are not shown.` : "";
  return [
    h("h3", {}, "Where the way parts"),
    h("p", { class: "caption" }, `At a sum two ways meet and their signals add up; at an attention the signal goes on through the values and through the softmax. The chain follows the stronger one.${more}`),
    h("ul", { class: "forks", "data-forks": chain.forks.length }, ...chain.forks.map(forkRow)),
  ];
}

function forkRow(fork: ForkView): HTMLElement {
  const ways = fork.ways.map((w) => {
    const bar = h("i", { class: w.followed ? "followed" : "" });
    bar.style.width = `${100 * (w.share ?? 0)}%`;
    const percent = 100 * (w.share ?? 0);
    const share = w.share === null ? "-" : percent > 0 && percent < 0.1 ? "< 0.1 %" : `${Number(percent.toPrecision(percent > 99 ? 3 : 2))} %`;
    return h("li", {}, h("span", {}, short(w.label, 40), w.followed ? h("em", {}, " followed") : null), h("span", { class: "share-track" }, bar), h("strong", {}, share));
  });
  const gain = fork.gain === null ? "" : `, the sum is ${fork.gain} times its largest part`;
  return h("li", { "data-fork": fork.layer, "data-kind": fork.kind }, h("p", { class: "fine" }, `${fork.kind === "sum" ? "sum at" : "attention in"} ${short(fork.layer, 50)}${gain}`), h("ul", { class: "shares" }, ...ways),
    fork.more ? h("p", { class: "fine" }, `and ${fork.more} more ways`) : null);
}

function recurrences(chain: ChainView): Node[] {
  return chain.recurrences.flatMap((r) => {
    const drawn = chart(220, "time");
    const told = r.gain_per_step === null ? "" : ` Each time step passes ${r.gain_per_step} of it on.`;
    drawn.update((look) => timeOption(r, look.accent, look), `Signal at ${r.total} time steps of ${short(r.layer, 60)}.${told}`);
    return [h("h3", { "data-recurrence": r.layer }, `Back through time in ${short(r.layer, 50)}`), h("p", { class: "caption" }, `The signal at each of ${r.total} time steps, in decades relative to the last.${told}`), drawn.box];
  });
}

function timeOption(r: RecurrenceView, colour: string, look: Parameters<typeof valueAxis>[0]): object {
  return {
    grid: { left: 48, right: 16, top: 10, bottom: 42 },
    xAxis: valueAxis(look, { min: r.steps[0], max: r.steps[r.steps.length - 1], minInterval: 1, splitLine: { show: false }, name: "time step", nameLocation: "middle", nameGap: 26 }),
    yAxis: valueAxis(look, { axisLabel: { color: look.soft, fontSize: 12, formatter: (v: number) => decades(v) } }),
    series: [{ name: "signal", type: "line", data: r.steps.map((s, i) => [s, r.signal[i]]), showSymbol: r.steps.length < 40, symbolSize: 5, lineStyle: { width: 2, color: colour }, itemStyle: { color: colour } }],
    tooltip: { trigger: "axis", formatter: (items: { data: [number, number] }[]) => tip(`time step ${items[0]?.data[0] ?? ""}`, [["signal", `${decades(items[0]?.data[1])} decades`]]) },
  };
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

/** The rows of the product, each from where the one before it ended. Used by the lab too. */
export function fall(rows: ChainRow[], lowest: number | null, highest: number | null): HTMLElement {
  const reach = rows.flatMap((r) => [r.to, r.from !== null && r.predicted !== null ? r.from + r.predicted : null]);
  const low = Math.min(lowest ?? 0, ...reach.filter((v): v is number => v !== null), -0.5);
  const high = Math.max(highest ?? 0, ...reach.filter((v): v is number => v !== null), 0.1);
  const place = (v: number) => (100 * (v - low)) / (high - low);
  const list = h("ol", { class: "fall" });
  list.append(scaleRow(low, high, place));
  const digits = high - low < 1.5 ? 2 : 1; // a chain that hardly loses anything is not told in zeros
  for (const row of rows) list.append(fallRow(row, place, digits));
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

function fallRow(row: ChainRow, place: (v: number) => number, digits: number): HTMLElement {
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
    { class: row.label.length > 19 ? "long" : "", "data-kind": row.kind, "data-decades": row.decades ?? row.mark ?? "", title: `${row.label}: gain ${row.gain}, ${row.text} decades${predicted}` },
    h("span", { class: "fall-name" }, short(row.label, 44)),
    track,
    h("span", { class: "fall-value" }, row.decades === null ? row.text : decades(row.decades, digits)),
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
