// The view model, as unvanish.present.view.build_view makes it. Nothing here is computed again.

export type Num = number | null;
export type Cell = number | "nan" | "zero" | "unmeasured";

export interface Fact {
  name: string;
  value: string;
}

export interface LossView {
  steps: number[];
  values: Num[];
  smooth: { steps: number[]; values: Num[] } | null;
  recorded: number;
  finite: number;
  unseen: number;
  log: boolean;
  min: Num;
  max: Num;
  first: Num;
  last: Num;
  chance: Num;
  non_finite_steps: number[];
  non_finite: number;
  marks: { step: number; label: string; severity: string }[];
  flat: [number, number][];
  summary: string;
}

export interface SignalView {
  rows: string[];
  steps: number[];
  cells: Cell[][];
  traced: number;
  gauge_free: boolean;
  low: number;
  high: number;
  clipped: number;
  counts: { nan: number; zero: number; unmeasured: number };
  profile: Cell[];
  gains: Num[];
  skipped: number[];
  summary: string;
}

export interface LayerView {
  name: string;
  operation: string;
  module_class: string | null;
  parameters: string[];
  steps: number[];
  rms: Num[];
  zeros: Num[];
  output_mean: Num[];
  output_std: Num[];
  histogram: { low: number; bin: number; columns: string[] };
  activation: {
    name: string;
    steps: number[];
    gain: Num[];
    bound: Num;
    closed: Num[];
    units: number | null;
    summary: string;
  } | null;
}

export interface SizesView {
  steps: number[];
  parameters: { name: string; gradient: Num[]; update: Num[] }[];
}

export interface RiverView {
  step: number | null;
  nodes: { label: string; kind: string; rows: string[]; depth: number; lane: number; signal: Num }[];
  edges: { from: number; to: number; signal: Num; mark: string | null }[];
  gathered: number;
  low: number;
  high: number;
}

export interface ForkView {
  kind: string;
  layer: string;
  gain: string | null;
  ways: { label: string; share: Num; norm: string; followed: boolean }[];
  more: number;
}

export interface RecurrenceView {
  layer: string;
  fused: boolean;
  total: number;
  steps: number[];
  signal: Num[];
  gain_per_step: string | null;
}

export interface ChainRow {
  label: string;
  kind: string;
  factors: number;
  gain: string;
  decades: Num;
  text: string;
  from: Num;
  to: Num;
  predicted: Num;
  bound: Num;
  mark: string | null;
}

export interface ChainView {
  parameter: string;
  layer: string;
  place: string;
  step: number;
  depth: number;
  output_layer: string;
  rows: ChainRow[];
  low: Num;
  high: Num;
  total: Num;
  total_text: string;
  sentence: string;
  attribution: { part: string; label: string; decades: Num; text: string }[];
  forks: ForkView[];
  more_forks: number;
  recurrences: RecurrenceView[];
  uses: number;
  ends: { output_norm: string; signal_norm: string; last_factor: string; gradient_norm: string };
}

export interface WeightParameter {
  name: string;
  shape: number[];
  steps: number[];
  norm: Num[];
  bands: Num[][];
  non_finite: number;
  summary: string;
}

export interface WeightsView {
  quantiles: number[];
  parameters: WeightParameter[];
  default: number[];
}

export interface FindingView {
  kind: string;
  kind_text: string;
  cause: string;
  cause_text: string;
  severity: string;
  confidence: Num;
  first_step: number;
  layers: string[];
  layer_rows: (number | null)[];
  summary: string;
  evidence: {
    layer: string;
    row: number | null;
    first: number;
    statistic: string;
    value: string;
    threshold: string;
    mark: string | null;
    steps: string;
    source: string;
  }[];
  advice: { treatment: string; text: string }[];
}

export interface Note {
  what: string;
  why: string;
}

export interface ModelView {
  name: string;
  class_name: string;
  verdict: string;
  headline: { word: string; claim: string; verdict: string; why: string; next: string };
  facts: Fact[];
  loss: LossView;
  signal: SignalView;
  chains: ChainView[];
  layers: LayerView[];
  sizes: SizesView;
  river: RiverView;
  weights: WeightsView;
  findings: FindingView[];
  skipped: Note[];
}

export interface TrialRow {
  name: string;
  title: string;
  role: "baseline" | "trial";
  chosen: boolean;
  safety: string;
  predicted: Num;
  measured: Num;
  predicted_text: string;
  measured_text: string;
  first: Num;
  last: Num;
  interval: [Num, Num];
  loss_text: string;
  outcome: string;
  outcome_text: string;
  why: string;
  seeds: number;
  stuck_seeds: number;
  steps: number;
  learning_rate: string;
  curve: { steps: number[]; mean: Num[]; low: Num[]; high: Num[] } | null;
  map: { rows: string[]; steps: number[]; cells: Cell[][]; gauge_free: boolean; profile: Cell[]; summary: string } | null;
}

export interface TreatmentView {
  rows: TrialRow[];
  chance: Num;
  chosen: string | null;
  recipe: string | null;
  diff: string | null;
  patch: string | null;
  untried: { name: string; title: string; why: string }[];
  notes: string[];
  steps: number;
  stopped: string | null;
  wall_seconds: Num;
  gain_low: number;
  gain_high: number;
  low: Num;
  high: Num;
  log: boolean;
  map_low: number;
  map_high: number;
  summary: string;
  next: { text: string; command: string | null } | null;
}

export interface RunView {
  id: string;
  path: string;
  created: string;
  ended: string | null;
  script: string | null;
  name: string;
  command: string;
  seed: number | null;
  device: string;
  versions: Record<string, string>;
  status: string;
  status_text: string;
  events_dropped: number;
}

export interface View {
  view: number;
  version: string;
  verdict: string;
  run: RunView;
  models: ModelView[];
  treatment: TreatmentView | null;
  incidents: { step: number; where: string; what: string }[];
  skipped: Note[];
}

export interface DifferenceView {
  a: string;
  b: string;
  model?: string; // of the first run
  rows: string[];
  steps: number[];
  cells: Cell[][];
  aligned?: string;
  only_a?: string[];
  only_b?: string[];
}

export interface CompareView {
  kind: "compare";
  runs: View[];
  differences: DifferenceView[];
}

export interface RunEntry {
  id: string;
  name: string;
  created: string;
  status: string;
  verdict: string | null;
  steps: number | null;
  loss: number | { first?: Num; last?: Num } | null;
}
