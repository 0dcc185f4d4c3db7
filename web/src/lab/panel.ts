// The lab: what depth, width, activation, init, norm and skips do to the signal, at once and by theory alone.

import { chart, stepAxis, tip, valueAxis } from "../charts";
import { copyButton } from "../copy";
import { h, panel, uid } from "../dom";
import { decades, plain } from "../format";
import { fall } from "../panels/waterfall";
import type { Tokens } from "../theme";
import type { ChainRow } from "../types";
import { code, INITS, NAMES, specs, type Net } from "./net";
import { logGainSd, predictGains, type Prediction } from "./theory";

const STALL = 3 / Math.LN10; // decades of rms gain through the whole net, beyond which SGD stalls (6 xi)
const ROWS = 48;
const net: Net = { depth: 12, width: 64, activation: "sigmoid", init: "torch", scale: 1, norm: "none", skip: false };

export function labPanel(): HTMLElement {
  const section = panel("lab", "Lab", "A stack of equal layers, before it trains. Move a slider: theory says at once how much of the signal would reach the first layer.");
  const verdict = h("p", { class: "lead lab-verdict", "aria-live": "polite" });
  const fine = h("p", { class: "fine" });
  const drawn = chart(280, "profile");
  const product = h("div", { class: "chain" });
  const source = h("pre", { class: "patch code", tabindex: 0, role: "region", "aria-label": "PyTorch code of this net" });
  const update = () => {
    const made = predictGains(specs(net));
    const profile = profileOf(made);
    const total = profile[0] ?? null;
    section.dataset.total = total === null ? "unknown" : total.toFixed(9);
    section.dataset.gain = String(gainPerLayer(made) ?? "unknown");
    verdict.textContent = sentence(total);
    verdict.dataset.fate = fate(total);
    fine.textContent = band(made);
    drawn.update((look) => option(made, profile, look), `Predicted signal at ${net.depth} layers. ${sentence(total)}`);
    const rows = factors(made);
    product.replaceChildren(...(rows.length ? [fall(rows, null, null)] : []));
    source.textContent = code(net);
  };
  section.append(
    h("div", { class: "lab-grid" }, controls(update), h("div", {}, verdict, fine, drawn.box)),
    h("h3", {}, "The product of factors"),
    h("p", { class: "caption" }, "From the output to the first layer. Left is less signal."),
    product,
    h("h3", {}, "The same net in PyTorch"),
    copyButton("code", () => code(net), "Copy the code", "Select it below and copy"),
    source,
  );
  update();
  return section;
}

// --- what can be set ---------------------------------------------------------------------------------------

function controls(update: () => void): HTMLElement {
  const depth = slider("Depth", 2, 100, net.depth, (v) => `${v} layers`, (v) => (net.depth = v));
  const width = slider("Width", 3, 11, Math.log2(net.width), (v) => `${2 ** v} units`, (v) => (net.width = 2 ** v));
  const scale = slider("Weight scale", -20, 20, Math.round(10 * Math.log2(net.scale)), (v) => `\u00d7 ${plain(scaleOf(v), 3)}`, (v) => (net.scale = scaleOf(v)));
  const options = (from: Record<string, string>) => Object.entries(from);
  const form = h("form", { class: "controls", "aria-label": "The net" },
    depth, width,
    select("Activation", options(NAMES), net.activation, (v) => (net.activation = v)),
    select("Init", options(INITS), net.init, (v) => (net.init = v)),
    scale,
    select("Normalisation", [["none", "none"], ["batch", "batch norm"], ["layer", "layer norm"]], net.norm, (v) => (net.norm = v as Net["norm"])),
    check("Skip connections", net.skip, (v) => (net.skip = v)));
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  return form;
}

function scaleOf(at: number): number {
  return at === 0 ? 1 : Number((2 ** (at / 10)).toPrecision(4));
}

function slider(name: string, min: number, max: number, value: number, text: (v: number) => string, set: (v: number) => void): HTMLElement {
  const id = uid("lab");
  const input = h("input", { id, type: "range", min, max, step: 1, value, "data-control": name });
  const output = h("output", { for: id }, text(value));
  input.addEventListener("input", () => {
    set(Number(input.value));
    output.textContent = text(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  });
  return h("div", { class: "control" }, h("label", { for: id }, name), output, input);
}

function select(name: string, choices: [string, string][], value: string, set: (v: string) => void): HTMLElement {
  const id = uid("lab");
  const input = h("select", { id, "data-control": name }, ...choices.map(([v, text]) => h("option", { value: v, selected: v === value }, text)));
  input.addEventListener("input", () => set(input.value));
  return h("div", { class: "control" }, h("label", { for: id }, name), input);
}

function check(name: string, value: boolean, set: (v: boolean) => void): HTMLElement {
  const id = uid("lab");
  const input = h("input", { id, type: "checkbox", checked: value, "data-control": name });
  input.addEventListener("input", () => set(input.checked));
  return h("div", { class: "control check" }, input, h("label", { for: id }, name));
}

// --- what theory says of it --------------------------------------------------------------------------------

/** Decades of signal at each layer relative to the output layer; null where theory has no say. */
export function profileOf(made: Prediction[]): (number | null)[] {
  const profile: (number | null)[] = [0];
  for (let l = made.length - 1; l > 0; l -= 1) {
    const [next, chi] = [profile[0], made[l]!.chi];
    profile.unshift(next === null || next === undefined || chi === null || chi <= 0 ? null : next + 0.5 * Math.log10(chi));
  }
  return profile;
}

function gainPerLayer(made: Prediction[]): number | null {
  const inner = made.length > 2 ? made.slice(1, -1) : made.slice(1);
  if (!inner.length || inner.some((p) => p.chi === null || p.chi <= 0)) return null;
  return Math.exp(inner.reduce((sum, p) => sum + Math.log(p.chi!), 0) / inner.length);
}

function fate(total: number | null): string {
  if (total === null) return "unknown";
  return total < -STALL ? "vanishes" : total > STALL ? "explodes" : "arrives";
}

function sentence(total: number | null): string {
  if (total === null) return "The numbers leave the range of floats on the way: this net can't be followed.";
  const size = `${plain(10 ** total, 2)} of what the output layer gets (${decades(total)} decades)`;
  if (fate(total) === "vanishes") return `The signal vanishes: the first layer gets ${size}.`;
  if (fate(total) === "explodes") return `The signal explodes: the first layer gets ${size}.`;
  return `The signal arrives: the first layer gets ${size}.`;
}

function band(made: Prediction[]): string {
  const gain = gainPerLayer(made);
  const spread = logGainSd(net.depth, net.width) / 2 / Math.LN10;
  const told = gain === null ? "" : `Each layer passes ${plain(gain, 3)} of the squared signal on; at 1 it neither fades nor grows. `;
  return `${told}This is the mean over draws of a wide net: one ReLU net of this width and depth lies within about \u00b1${plain(2 * spread, 2)} decades of it.`;
}

/** The factors from the output to the first layer, as rows of a waterfall; layers together where there are many. */
function factors(made: Prediction[]): ChainRow[] {
  const parts: { label: string; kind: string; gain: number }[] = [];
  for (let l = made.length - 1; l > 0; l -= 1) {
    const p = made[l]!;
    const add = (kind: string, label: string, gain: number | null) => gain !== null && Math.abs(Math.log10(gain)) > 1e-9 && parts.push({ label, kind, gain });
    add("weight", `weights of layer ${l + 1}`, p.weight);
    add("skip", `skip over layer ${l + 1}`, p.skip);
    add("norm", `norm of layer ${l}`, p.norm);
    if (p.chi !== null && p.chiRaw) add("other", `scale of layer ${l}, free under a norm`, Math.sqrt(p.chi / p.chiRaw));
    add("activation", `${NAMES[net.activation]} of layer ${l}`, p.activation);
  }
  const size = Math.max(Math.ceil(parts.length / ROWS), 1);
  const rows: ChainRow[] = [];
  let level = 0;
  for (let i = 0; i < parts.length; i += size) {
    const group = parts.slice(i, i + size);
    const step = group.reduce((sum, p) => sum + Math.log10(p.gain), 0);
    const alone = group.length === 1;
    rows.push({
      label: alone ? group[0]!.label : `${group[0]!.label} and ${group.length - 1} more`, kind: alone ? group[0]!.kind : "several", factors: group.length,
      gain: plain(10 ** step, 3), decades: step, text: decades(step), from: level, to: level + step, predicted: null, bound: null, mark: null,
    });
    level += step;
  }
  return rows;
}

function option(made: Prediction[], profile: (number | null)[], look: Tokens): object {
  const limit = (at: number) => ({ yAxis: at, lineStyle: { color: look.soft, type: [5, 5], width: 1.25 }, label: { show: true, position: "insideStartTop", color: look.soft, fontSize: 12, formatter: at < 0 ? "SGD stalls below" : "too large above" } });
  const known = profile.filter((v): v is number => v !== null);
  const [low, high] = [Math.min(...known, -STALL) - 0.4, Math.max(...known, STALL) + 0.4];
  return {
    grid: { left: 48, right: 16, top: 12, bottom: 44 },
    xAxis: stepAxis(look, 1, made.length, { name: "layer (1 = nearest to the data)", nameLocation: "middle", nameGap: 28, minInterval: 1 }),
    yAxis: valueAxis(look, { min: low, max: high, axisLabel: { color: look.soft, fontSize: 12, showMinLabel: false, showMaxLabel: false, formatter: (v: number) => decades(v) } }),
    series: [{
      name: "signal", type: "line", data: profile.map((v, i) => [i + 1, v]), showSymbol: made.length < 40, symbolSize: 7,
      lineStyle: { width: 2.5, color: look.accent }, itemStyle: { color: look.accent },
      markLine: { silent: true, symbol: "none", animation: false, data: [limit(-STALL), limit(STALL)] },
    }],
    tooltip: { trigger: "axis", formatter: (items: { data: [number, number] }[]) => {
      const layer = items[0]?.data[0] ?? 1;
      return tip(`layer ${layer}`, [["signal", `${decades(items[0]?.data[1])} decades`], ["squared gain into it", plain(made[layer]?.chi)]]);
    } },
  };
}
