// The net that the sliders describe: as theory's layers, and as PyTorch code that builds the same one.

import { ACTIVATIONS } from "./activations";
import { derivativeMoment, type Spec } from "./theory";

export interface Net {
  depth: number; // weighted layers
  width: number;
  activation: string;
  init: string;
  scale: number; // on top of the init, of every weight
  norm: "none" | "batch" | "layer";
  skip: boolean;
}

export const INITS: Record<string, string> = {
  torch: "PyTorch's default",
  xavier: "Xavier",
  he: "He",
  orthogonal: "orthogonal",
  small: "normal, std 0.01",
  critical: "critical for the activation",
};

export const NAMES: Record<string, string> = {
  sigmoid: "Sigmoid", tanh: "Tanh", relu: "ReLU", leaky_relu: "LeakyReLU", elu: "ELU", selu: "SELU", gelu: "GELU", silu: "SiLU", softplus: "Softplus", hardtanh: "Hardtanh", identity: "Identity",
};

/** fan_in Var W and Var b of an init, for a square layer of this width. */
export function variances(net: Net): { sw2: number; sb2: number; centres: boolean } {
  const phi = ACTIVATIONS[net.activation]!;
  const s2 = net.scale ** 2;
  if (net.init === "torch") return { sw2: s2 / 3, sb2: 1 / (3 * net.width), centres: false };
  if (net.init === "he") return { sw2: 2 * s2, sb2: 0, centres: false };
  if (net.init === "small") return { sw2: 1e-4 * net.width * s2, sb2: 0, centres: false };
  if (net.init === "critical") return { sw2: s2 / derivativeMoment(phi, 0), sb2: 0, centres: phi.f(0) !== 0 };
  return { sw2: s2, sb2: 0, centres: false };
}

/** The layers from the data to the output; the last is linear, as the output of a net is. */
export function specs(net: Net): Spec[] {
  const init = variances(net);
  return Array.from({ length: net.depth }, (_, i) => {
    const last = i === net.depth - 1;
    return {
      fanIn: net.width, fanOut: net.width, ...init, input: i === 0 ? 1 : null,
      norm: last ? "none" : net.norm, activation: last ? "identity" : net.activation, skip: !last && net.skip,
    };
  });
}

const NORMS = { none: "", batch: "nn.BatchNorm1d(width)", layer: "nn.LayerNorm(width)" };

function initLines(net: Net): string[] {
  const phi = ACTIVATIONS[net.activation]!;
  const gain = 1 / Math.sqrt(derivativeMoment(phi, 0));
  const offset = phi.f(0);
  const scaled = net.scale === 1 ? [] : [`linear.weight.mul_(${net.scale})`];
  const zero = "nn.init.zeros_(linear.bias)";
  const lines: Record<string, string[]> = {
    torch: [...scaled, ...(scaled.length ? [] : ["pass  # PyTorch's own init"])],
    xavier: ["nn.init.xavier_normal_(linear.weight)", ...scaled, zero],
    he: ["nn.init.kaiming_normal_(linear.weight)", ...scaled, zero],
    orthogonal: ["nn.init.orthogonal_(linear.weight)", ...scaled, zero],
    small: ["nn.init.normal_(linear.weight, std=0.01)", ...scaled, zero],
    critical: [`nn.init.orthogonal_(linear.weight, gain=${Number(gain.toPrecision(10))})`, ...scaled,
      offset === 0 ? zero : `linear.bias.copy_(-linear.weight.sum(1) * ${Number(offset.toPrecision(10))})`],
  };
  return lines[net.init] ?? lines.torch!;
}

/** PyTorch code for the same net: it runs as it is and leaves the net in `model`. */
export function code(net: Net): string {
  const norm = NORMS[net.norm];
  const act = `nn.${NAMES[net.activation]}()`;
  const body = norm ? `self.act(self.norm(self.linear(h)))` : `self.act(self.linear(h))`;
  return [
    "import torch",
    "from torch import nn",
    "",
    `depth, width = ${net.depth}, ${net.width}`,
    "",
    "",
    "class Layer(nn.Module):",
    "    def __init__(self) -> None:",
    "        super().__init__()",
    "        self.linear = nn.Linear(width, width)",
    ...(norm ? [`        self.norm = ${norm}`] : []),
    `        self.act = ${act}`,
    "",
    "    def forward(self, h: torch.Tensor) -> torch.Tensor:",
    `        return ${net.skip ? `h + ${body}` : body}`,
    "",
    "",
    "@torch.no_grad()",
    "def init(linear: nn.Linear) -> None:",
    ...initLines(net).map((line) => `    ${line}`),
    "",
    "",
    "model = nn.Sequential(*[Layer() for _ in range(depth - 1)], nn.Linear(width, width))",
    "for module in model.modules():",
    "    if isinstance(module, nn.Linear):",
    "        init(module)",
    "",
  ].join("\n");
}
