// Activations as theory needs them; the same as src/unvanish/theory/activations.py, to rounding.

export interface Activation {
  name: string;
  f: (z: number) => number;
  d: (z: number) => number;
  bound: number;
  kinks: number[];
  turns: number[];
}

const SELU_ALPHA = 1.6732632423543772; // Klambauer et al. (2017)
const SELU_SCALE = 1.0507009873554805;

function logistic(z: number): number {
  const small = Math.exp(-Math.abs(z)); // never overflows
  return (z >= 0 ? 1 : small) / (1 + small);
}

/** The error function: its series near 0, a continued fraction (Lentz) of erfc beyond. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 6.5) return Math.sign(x);
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 90 && term > 1e-18 * sum; n += 1) {
      term *= (2 * z * z) / (2 * n + 1);
      sum += term;
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
  }
  let tail = 0;
  for (let k = 80; k > 0; k -= 1) tail = k / 2 / (z + tail);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + tail));
}

const cdf = (z: number) => 0.5 * (1 + erf(z / Math.SQRT2));
const density = (z: number) => Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI);

function rectified(name: string, slope: number): Activation {
  return { name, f: (z) => (z > 0 ? z : slope * z), d: (z) => (z > 0 ? 1 : slope), bound: Math.max(1, Math.abs(slope)), kinks: [0], turns: [0] };
}

function exponential(name: string, alpha: number, scale: number): Activation {
  return {
    name,
    f: (z) => scale * (z > 0 ? z : alpha * Math.expm1(Math.min(z, 0))),
    d: (z) => scale * (z > 0 ? 1 : alpha * Math.exp(Math.min(z, 0))),
    bound: scale * Math.max(1, Math.abs(alpha)),
    kinks: [0],
    turns: [0],
  };
}

const smooth = (name: string, f: (z: number) => number, d: (z: number) => number, bound: number): Activation => ({ name, f, d, bound, kinks: [], turns: [0] });

const geluSlope = (z: number) => cdf(z) + z * density(z);
const siluSlope = (z: number) => logistic(z) * (1 + z * logistic(-z));

export const ACTIVATIONS: Record<string, Activation> = {
  identity: smooth("identity", (z) => z, () => 1, 1),
  sigmoid: smooth("sigmoid", logistic, (z) => logistic(z) * logistic(-z), 0.25),
  tanh: smooth("tanh", Math.tanh, (z) => 4 * logistic(2 * z) * logistic(-2 * z), 1),
  relu: rectified("relu", 0),
  leaky_relu: rectified("leaky_relu", 0.01),
  elu: exponential("elu", 1, 1),
  selu: exponential("selu", SELU_ALPHA, SELU_SCALE),
  gelu: smooth("gelu", (z) => z * cdf(z), geluSlope, geluSlope(Math.SQRT2)),
  silu: smooth("silu", (z) => z * logistic(z), siluSlope, siluSlope(2.3993572805154676)),
  softplus: smooth("softplus", (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))), logistic, 1),
  hardtanh: { name: "hardtanh", f: (z) => Math.min(Math.max(z, -1), 1), d: (z) => (z > -1 && z < 1 ? 1 : 0), bound: 1, kinks: [-1, 1], turns: [-1, 1] },
};
