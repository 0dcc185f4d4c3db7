// The mean field of wide random nets, as src/unvanish/theory has it; held to it by web/vectors.json to 1e-6.
// Poole et al. (2016), Schoenholz et al. (2016), Yang et al. (2019) for infinite batches, He et al. (2015).

import { ACTIVATIONS, type Activation } from "./activations";

export interface Spec {
  fanIn: number;
  fanOut: number;
  sw2: number; // fan_in Var W
  sb2: number; // Var b
  centres: boolean; // b = -W m, with m the mean of what comes in
  input: number | null; // E[h^2] of what enters; null = from the layer before
  norm: "none" | "batch" | "layer" | "rms";
  activation: string;
  skip: boolean;
}

/** What theory says of one layer; all null where it has no say. Gains of squares, factors as amplitudes. */
export interface Prediction {
  chi: number | null;
  chiRaw: number | null;
  activation: number | null;
  weight: number | null;
  norm: number | null;
  skip: number | null;
  length: number | null;
}

const REACH = 13; // standard deviations
const LEAST_VARIANCE = 1e-280; // stands for 0: the two sides of a kink at 0 count half each
const [NODES, WEIGHTS] = legendre(24);

/** Nodes and weights of Gauss-Legendre quadrature on [-1, 1], by Newton's method. */
function legendre(n: number): [number[], number[]] {
  const nodes: number[] = [];
  const weights: number[] = [];
  for (let i = 0; i < n; i += 1) {
    let x = Math.cos((Math.PI * (i + 0.75)) / (n + 0.5));
    let slope = 1;
    for (let round = 0; round < 100; round += 1) {
      let [before, here] = [1, x];
      for (let k = 2; k <= n; k += 1) [before, here] = [here, ((2 * k - 1) * x * here - (k - 1) * before) / k];
      slope = (n * (x * here - before)) / (x * x - 1);
      const step = here / slope;
      x -= step;
      if (Math.abs(step) < 1e-16) break;
    }
    nodes.push(x);
    weights.push(2 / ((1 - x * x) * slope * slope));
  }
  return [nodes, weights];
}

/** E[f(z)], z ~ N(0, variance), on panels that end at every kink and are graded around every turn. */
export function expectation(f: (z: number) => number, variance: number, phi: Activation): number {
  const spread = Math.sqrt(Math.max(variance, LEAST_VARIANCE));
  const breaks = [-REACH, REACH, ...phi.kinks.filter((k) => Math.abs(k) < spread * REACH).map((k) => k / spread)];
  for (const turn of phi.turns) {
    for (let d = 0.25; d < spread * REACH + Math.abs(turn) && d < 1e6; d *= 2) breaks.push((turn - d) / spread, (turn + d) / spread);
  }
  for (let g = -REACH + 1; g < REACH; g += 1) breaks.push(g);
  const edges = [...new Set(breaks.map((b) => Math.min(Math.max(b, -REACH), REACH)))].sort((a, b) => a - b);
  let sum = 0;
  for (let i = 1; i < edges.length; i += 1) {
    const [half, middle] = [(edges[i]! - edges[i - 1]!) / 2, (edges[i]! + edges[i - 1]!) / 2];
    for (let k = 0; k < NODES.length; k += 1) {
      const g = middle + half * NODES[k]!;
      sum += half * WEIGHTS[k]! * Math.exp(-0.5 * g * g) * f(spread * g);
    }
  }
  return sum / Math.sqrt(2 * Math.PI);
}

export const meanOf = (phi: Activation, q: number): number => expectation(phi.f, q, phi);
export const secondMoment = (phi: Activation, q: number): number => expectation((z) => phi.f(z) ** 2, q, phi);
export const derivativeMoment = (phi: Activation, q: number): number => expectation((z) => phi.d(z) ** 2, q, phi);

interface Signal {
  second: number;
  mean: number;
  variance: number | null; // over the batch; null = not known
}

interface Crossed {
  spec: Spec;
  length: number;
  activation: number;
  norm: number;
  signal: Signal;
}

const NOTHING: Prediction = { chi: null, chiRaw: null, activation: null, weight: null, norm: null, skip: null, length: null };

/** One prediction per layer, in order from the data to the output; the first has no gain. */
export function predictGains(specs: Spec[]): Prediction[] {
  let before: Crossed | null = null;
  return specs.map((spec) => {
    const here = cross(spec, before);
    const made: Prediction = here === null ? NOTHING : before === null ? { ...NOTHING, length: here.length } : prediction(before, here);
    before = here;
    return made;
  });
}

function cross(spec: Spec, before: Crossed | null): Crossed | null {
  const phi = ACTIVATIONS[spec.activation];
  if (!phi || ![spec.sw2, spec.sb2].every((v) => Number.isFinite(v) && v >= 0)) return null;
  if (before === null && spec.input === null) return null;
  const signal: Signal = before?.signal ?? { second: spec.input!, mean: 0, variance: spec.input! };
  const length = lengthOf(spec, signal, before !== null);
  if (length === null || !Number.isFinite(length) || (spec.norm !== "none" && length <= 0)) return null;
  return crossed(spec, phi, signal, length);
}

function lengthOf(spec: Spec, signal: Signal, follows: boolean): number | null {
  if (spec.norm === "batch") return signal.variance === null ? null : spec.sw2 * signal.variance;
  if (spec.centres && follows) return spec.sw2 * Math.max(signal.second - signal.mean ** 2, 0);
  return spec.sw2 * signal.second + spec.sb2;
}

function crossed(spec: Spec, phi: Activation, signal: Signal, length: number): Crossed {
  const q = spec.norm === "none" ? length : 1;
  let [second, centre] = [secondMoment(phi, q), meanOf(phi, q)];
  const activation = derivativeMoment(phi, q);
  const norm = spec.norm === "none" ? 1 : 1 / length;
  let variance = spec.norm === "batch" ? second - centre ** 2 : null;
  if (spec.activation === "identity" && spec.norm !== "batch" && signal.variance !== null) variance = norm * spec.sw2 * signal.variance;
  if (spec.skip) {
    second += signal.second + 2 * centre * signal.mean;
    centre += signal.mean;
    variance = variance !== null && signal.variance !== null ? variance + signal.variance : null;
  }
  return { spec, length, activation, norm, signal: { second, mean: centre, variance } };
}

function prediction(before: Crossed, here: Crossed): Prediction {
  const spec = here.spec;
  const widths = spec.fanOut / spec.fanIn;
  let skip = 1;
  if (spec.skip) {
    const branch = spec.sw2 * widths * here.activation * here.norm;
    if (branch <= 0) return NOTHING;
    skip = (1 + branch) / branch;
  }
  const raw = before.activation * before.norm * spec.sw2 * widths * skip;
  const free = here.length > 0 ? (raw * before.length) / here.length : null;
  const normed = before.spec.norm !== "none" || spec.norm !== "none";
  return {
    chi: normed ? free : raw,
    chiRaw: raw,
    activation: Math.sqrt(before.activation),
    weight: Math.sqrt(spec.sw2),
    norm: Math.sqrt(before.norm),
    skip: Math.sqrt(skip),
    length: here.length,
  };
}

/** Standard deviation, in nats of the squared norm, of one draw of a ReLU net (Hanin and Nica 2018). */
export function logGainSd(depth: number, width: number): number {
  return Math.sqrt((5 * depth) / width);
}
