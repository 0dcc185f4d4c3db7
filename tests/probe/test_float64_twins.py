"""Every quantity of the record against a slow, obvious float64 twin: the net copied to double, every number in loops.

Each net is watched while it trains three steps, in float32 as users train and in float64. The twin trains beside it on
the same batches; what goes into and comes out of each of its modules is kept, and each quantity is its definition.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from watching import seed, watched

from unvanish.schema.graph import EXPONENT_BINS, EXPONENT_FLOOR, Operation, OperationStats, Trace
from unvanish.schema.run import PARAMETER_STATISTICS, SNAPSHOT_QUANTILES, ModelRun

STEPS, ROWS, CLASSES = 3, 12, 3
RATE, MOST_NORM = 1e-2, 0.05
EPS = 1e-4  # large: Adam would blow up the rounding of gradients that are zero (a bias before a batch norm)


# --- the nets ------------------------------------------------------------------------------------------------------


def mlp() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(7, 9), nn.Sigmoid(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, CLASSES, bias=False)
    )
    net[2].bias.data[:2] = -10.0  # closed units
    return net


def conv() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3), nn.Tanh(),
        nn.Flatten(), nn.Linear(16, CLASSES),
    )  # fmt: skip
    net[1].bias.data[1] = -10.0
    return net


class Gru(nn.Module):
    """A cell in a loop, and one that torch unrolls."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.rnn, self.head = (
            nn.GRUCell(5, 6),
            nn.RNN(6, 4, batch_first=True),
            nn.Linear(4, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        h, states = x.new_zeros(len(x), 6), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            states.append(h)
        out, _ = self.rnn(torch.stack(states, dim=1))
        return self.head(out[:, -1])


class Encoder(nn.Module):
    """A transformer's layer: norms, skips, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 11, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Words(nn.Module):
    """An embedding, whose input has no gradient and whose rows are not all used."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 6), nn.Linear(6, 7), nn.Linear(7, CLASSES)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.mix(self.embed(x))).mean(1))


class Functional(nn.Module):
    """No modules below it: raw parameters, functions, and a sum of two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(0.4 * torch.randn(8, 7)), nn.Parameter(0.1 * torch.randn(8))
        self.c, self.d = nn.Parameter(0.4 * torch.randn(8, 8)), nn.Parameter(0.4 * torch.randn(8, CLASSES))
        self.kept: dict[str, Tensor] = {}

    def keep(self, name: str, value: Tensor) -> Tensor:
        if value.dtype == torch.float64 and self.kept is not None and value.requires_grad:
            value.retain_grad()
            self.kept[name] = value
        return value

    def forward(self, x: Tensor) -> Tensor:
        self.kept = {}
        h = self.keep("Tanh", torch.tanh(F.linear(x, self.a, self.b)))
        g = self.keep("Sigmoid", torch.sigmoid(h @ self.c))
        return self.keep("output", self.keep("Relu", F.relu(h * g)) @ self.d)


def features(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(ROWS, *shape, dtype=torch.float64) * torch.linspace(0.5, 2, shape[-1]) + 0.1


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, features(7)),
    "conv": (conv, features(2, 8, 8)),
    "gru": (Gru, features(4, 5)),
    "encoder": (Encoder, features(5, 8)),
    "words": (Words, lambda: torch.randint(15, (ROWS, 6))),
    "functional": (Functional, features(7)),
}


# --- the twin ------------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """One call of one module: what went in, as this call alone sees it, and what came out."""

    module: nn.Module
    entry: Tensor | None
    output: Tensor
    began: Tensor | None = None  # the input as a copy whose gradient is this call's alone


@dataclass
class Step:
    """All that is true of one step."""

    loss: float
    calls: dict[tuple[str, int], Kept]
    named: dict[str, Tensor]
    labels: list[int]
    shares: dict[str, Tensor]  # gradients as the backward pass left them
    gradients: dict[str, Tensor]  # as the optimizer saw them
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    second: dict[str, Tensor]  # Adam's second moment, its bias taken out
    clip: float


@dataclass
class Twin:
    """The same net in double, trained by hand-kept steps."""

    net: nn.Module
    dtype: torch.dtype
    steps: list[Step] = field(default_factory=list)
    calls: dict[tuple[str, int], Kept] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=RATE, eps=EPS)
        for path, module in self.net.named_modules():
            if path and next(module.children(), None) is None:
                module.register_forward_pre_hook(self._entering)
                module.register_forward_hook(self._keeper(path))

    def _entering(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        first = args[0]
        if isinstance(first, Tensor) and first.requires_grad and not first.is_leaf:
            first = first.clone()
            first.retain_grad()
        return (first, *args[1:])

    def _keeper(self, path: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, tuple):
                output = output[0]
            if isinstance(output, Tensor) and output.requires_grad:
                output.retain_grad()
                began = args[0] if args[0].requires_grad else None
                self.calls[path, self.counts[path]] = Kept(module, args[0], output, began)
                self.counts[path] += 1

        return keep

    def step(self, x: Tensor, y: Tensor) -> None:
        """One step, with everything that is true of it."""
        self.calls, self.counts = {}, Counter()
        before = {n: p.detach().clone() for n, p in self.net.named_parameters()}
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(x.double() if x.is_floating_point() else x), y)
        loss.backward()
        shares = {n: p.grad.clone() for n, p in self.net.named_parameters() if p.grad is not None}
        whole = math.sqrt(math.fsum(v * v for g in shares.values() for v in g.flatten().tolist()))
        factor = min(1.0, MOST_NORM / (whole + 1e-6))
        for p in self.net.parameters():
            if p.grad is not None:
                p.grad.mul_(factor)
        gradients = {n: p.grad.clone() for n, p in self.net.named_parameters() if p.grad is not None}
        self.optimizer.step()
        second = {
            n: self.optimizer.state[p]["exp_avg_sq"].clone() / (1 - 0.999 ** (len(self.steps) + 1))
            for n, p in self.net.named_parameters()
        }
        self.steps.append(
            Step(
                float(loss.detach()), self.calls, dict(getattr(self.net, "kept", {})), y.tolist(), shares, gradients,
                before, {n: p.detach().clone() for n, p in self.net.named_parameters()}, second, factor,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Both:
    """What was recorded, and the twin."""

    run: ModelRun
    twin: Twin
    dtype: torch.dtype

    @property
    def single(self) -> bool:
        return self.dtype == torch.float32

    def same(self, found: float | None, true: float, size: float | None = None, *, what: Any = "") -> None:
        """To rounding, relative to the number, or to `size` where it is a sum of larger ones that cancel."""
        tolerance = 2e-4 if self.single else 1e-9
        floor = 1e-30 if size is None else size
        assert found is not None, what
        assert abs(found - true) <= tolerance * max(abs(true), floor), (what, found, true)

    def traced(self) -> list[tuple[Trace, Sequence[Operation], Step]]:
        return [
            (t, self.run.graphs[t.graph].operations, self.twin.steps[t.step]) for t in self.run.traces
        ]  # fmt: skip

    def ends(self) -> list[tuple[tuple[str, int], Operation, OperationStats, Kept]]:
        """The last operation of every call of every module that the twin kept, of all traces."""
        found = []
        for trace, operations, step in self.traced():
            last = {(o.module, o.call): o for o in operations if o.module}
            for (path, call), kept in step.calls.items():
                operation = last.get((path, call))
                if operation is not None:
                    found.append(((path, call), operation, trace.stats[operation.index], kept))
        return found


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: Any) -> Any:
    return request.param


@pytest.fixture(scope="module", params=CASES)
def both(request: Any, dtype: torch.dtype) -> Both:
    make, draw = CASES[request.param]
    seed(0)
    net = make().to(dtype)
    batches = [(draw(), torch.randint(CLASSES, (ROWS,))) for _ in range(STEPS)]
    batches = [(x.to(dtype) if x.is_floating_point() else x, y) for x, y in batches]
    twin = Twin(copy.deepcopy(net).double(), dtype)
    for x, y in batches:
        twin.step(x, y)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, eps=EPS)

    def train() -> None:
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            nn.utils.clip_grad_norm_(net.parameters(), MOST_NORM)
            optimizer.step()

    seen = watched(train)
    assert not seen.incidents
    assert [t.step for t in seen.model.traces] == list(range(STEPS))
    return Both(seen.model, twin, dtype)


def numbers(tensor: Tensor | None) -> list[float]:
    assert tensor is not None
    return [float(v) for v in tensor.detach().double().flatten().tolist()]


def root_sum(values: Iterable[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in values))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def spread(values: Sequence[float]) -> float:
    """Their variance, not corrected for their number."""
    middle = mean(values)
    return mean([(v - middle) ** 2 for v in values])


def close_to_zero(values: Sequence[float]) -> int:
    return sum(v == 0 for v in values)


# --- the signal: OperationStats -------------------------------------------------------------------------------------


def check_signal(both: Both, stats: OperationStats, values: Sequence[float], what: Any) -> None:
    size = max(map(abs, values), default=0.0)
    assert stats.count == len(values), what
    assert stats.sampled is None, what
    both.same(stats.norm, root_sum(values), size, what=what)
    both.same(stats.absmax, size, size, what=what)
    both.same(stats.total, math.fsum(values), math.fsum(map(abs, values)), what=what)
    assert stats.nonfinite == sum(not math.isfinite(v) for v in values) == 0
    bins = [0] * EXPONENT_BINS
    for v in values:
        if v != 0:
            bins[min(max((math.floor(math.log2(abs(v))) - EXPONENT_FLOOR) // 2, 0), EXPONENT_BINS - 1)] += 1
    # a number at the border of two bins may be rounded across it, and one may round to zero
    moved = sum(abs(a - b) for a, b in zip(stats.exponents, bins, strict=True))
    assert moved <= (0.02 * len(values) + 2 if both.single else 0), what
    assert abs(stats.zeros - close_to_zero(values)) <= (0.02 * len(values) if both.single else 0), what


def test_signal_of_every_module(both: Both) -> None:
    compared = 0
    for place, _, stats, kept in both.ends():
        if kept.output.grad is None:
            continue
        check_signal(both, stats, numbers(kept.output.grad), place)
        compared += 1
    assert compared >= (STEPS if not both.twin.steps[0].named else 0)


def test_signal_of_functions(both: Both) -> None:
    for trace, operations, step in both.traced():
        for name, tensor in step.named.items():
            found = (
                [o for o in operations if o.name == name]
                if name != "output"
                else [operations[trace.output or 0]]
            )
            assert len(found) == 1, name
            check_signal(both, trace.stats[found[0].index], numbers(tensor.grad), name)


def test_outputs_of_weighted_layers(both: Both) -> None:
    compared = 0
    for place, operation, stats, kept in both.ends():
        if stats.output_std is None:
            continue
        values = numbers(kept.output)
        size = max(map(abs, values))
        assert stats.output_count == len(values), place
        both.same(stats.output_std, math.sqrt(spread(values)), size, what=place)
        both.same(stats.output_rms, root_sum(values) / math.sqrt(len(values)), size, what=place)
        both.same(stats.output_mean, mean(values), size, what=place)
        compared += operation.kind == "weight"
    assert compared >= (STEPS if not both.twin.steps[0].named else 0)


def test_what_is_handed_on_along_an_edge(both: Both) -> None:
    """Of calls that are one operation, from one parent: the gradient at the input, of this consumer alone."""
    alone = Counter((o.module, o.call) for o in both.traced()[0][1])
    compared = 0
    for place, operation, stats, kept in both.ends():
        if alone[place] != 1 or len(operation.parents) != 1 or kept.began is None or kept.began.grad is None:
            continue
        values = numbers(kept.began.grad)
        both.same(stats.edge_norms[0], root_sum(values), max(map(abs, values)), what=place)
        compared += 1
    assert compared >= (STEPS if not both.twin.steps[0].named else 0)


def test_what_arrives_at_the_parameters(both: Both) -> None:
    compared = 0
    for trace, operations, step in both.traced():
        uses = Counter(n for o in operations for n in o.parameters)
        for operation in operations:
            stats = trace.stats[operation.index]
            for name, norm in zip(operation.parameters, stats.parameter_norms, strict=True):
                if uses[name] == 1 and norm is not None:
                    # a thousandth of the largest: the gradient of a bias before a batch norm is rounding alone
                    size = 1e-3 * max(root_sum(numbers(g)) for g in step.shares.values())
                    both.same(norm, root_sum(numbers(step.shares[name])), size, what=name)
                    compared += 1
    assert compared >= STEPS


def test_units_that_are_reached_and_closed(both: Both) -> None:
    """Of gates, which can close: a unit is closed when none of the batch's signals passes it."""
    for (path, call), operation, stats, kept in both.ends():
        if not isinstance(kept.module, nn.ReLU):
            assert stats.units is None, (path, operation.name)
            continue
        dim = 1 if kept.output.dim() == 4 else kept.output.dim() - 1
        reached, opened = [], []
        for unit in range(kept.output.shape[dim]):
            assert kept.began is not None
            assert kept.output.grad is not None and kept.began.grad is not None
            reached.append(any(v != 0 for v in numbers(kept.output.grad.select(dim, unit))))
            opened.append(any(v != 0 for v in numbers(kept.began.grad.select(dim, unit))))
        assert stats.units == sum(reached), (path, call)
        assert stats.closed_units == sum(r and not o for r, o in zip(reached, opened, strict=True)) > 0
        bits = np.packbits(reached).tobytes().hex() + np.packbits(opened).tobytes().hex()
        assert stats.unit_bits == bits, (path, call)


# --- the step: loss, rate, clipping, chance ---------------------------------------------------------------------------


def test_loss_rate_and_clipping(both: Both) -> None:
    run = both.run
    for i, step in enumerate(both.twin.steps):
        both.same(run.losses[i], step.loss)
        both.same(run.clips[i], step.clip)
        assert run.learning_rates[i] == RATE
        assert step.clip < 0.9, "it engages, or nothing is tested"
    for trace, _, step in both.traced():
        both.same(trace.loss, step.loss)


def test_chance(both: Both) -> None:
    """The entropy of all labels so far, corrected for their number (Miller and Madow)."""
    seen: list[int] = []
    for trace, _, step in both.traced():
        seen += step.labels
        shares = [seen.count(label) / len(seen) for label in set(seen)]
        entropy = -math.fsum(p * math.log(p) for p in shares) + (len(shares) - 1) / (2 * len(seen))
        both.same(trace.chance, min(entropy, math.log(CLASSES)))


# --- the parameters --------------------------------------------------------------------------------------------------


def truth(step: Step, name: str) -> dict[str, tuple[float, float]]:
    """(the number, what its error is to be compared with) by statistic."""
    g, w, after = numbers(step.gradients[name]), numbers(step.before[name]), numbers(step.after[name])
    change = [b - a for a, b in zip(w, after, strict=True)]
    n = len(w)
    fall = [-a * b for a, b in zip(g, change, strict=True)]
    roots = [math.sqrt(v) for v in numbers(step.second[name])]
    # a thousandth of the largest of its kind: what is smaller is rounding
    largest = 1e-3 * max(max(map(abs, numbers(v))) for v in step.gradients.values())
    return {
        "gradient_rms": (root_sum(g) / math.sqrt(n), largest),
        "gradient_absmax": (max(map(abs, g)), largest),
        "gradient_zeros": (close_to_zero(g) / n, 0.0),
        "gradient_nonfinite": (0.0, 0.0),
        "weight_rms": (root_sum(w) / math.sqrt(n), 0.0),
        "update_rms": (root_sum(change) / math.sqrt(n), 1e-3 * RATE + 1e-3 * max(map(abs, w))),
        "update_changed": (sum(v != 0 for v in change) / n, 0.0),
        "first_order": (math.fsum(fall), math.fsum(map(abs, fall)) + largest * RATE),
        "adam_suppression": (mean([r / (r + EPS) for r in roots]), 1.0),
    }


def rounding(step: Step, name: str) -> float:
    """The share of a gradient that would be zero without rounding, so that it is zero here and not there; 0: none."""
    g = numbers(step.gradients[name])
    tiny = [v for v in g if abs(v) < 1e-12]
    return len(tiny) / len(g) if any(tiny) else 0.0


def test_statistics_of_every_parameter(both: Both) -> None:
    run, width = both.run, len(both.run.info.parameters)
    assert list(run.parameter_steps) == list(range(STEPS))
    suppressions = 0
    for row, step in enumerate(both.twin.steps):
        for p in run.info.parameters:
            assert p.exact
            unsure = rounding(step, p.name)
            for name, (true, size) in truth(step, p.name).items():
                found = run.parameter_stats[name][row * width + p.index]
                if name == "adam_suppression" and math.isnan(found):
                    continue  # not looked at at this step
                suppressions += name == "adam_suppression"
                if name in ("gradient_zeros", "update_changed") and unsure:
                    assert abs(found - true) <= unsure, (p.name, name)
                else:
                    both.same(found, true, size, what=(p.name, name))
    assert suppressions > 0
    assert set(truth(both.twin.steps[0], run.info.parameters[0].name)) == set(PARAMETER_STATISTICS)


def test_snapshots_of_every_parameter(both: Both) -> None:
    names = [p.name for p in both.run.info.parameters]
    shots = [s for s in both.run.snapshots if s.step < STEPS]
    assert {(s.step, s.parameter) for s in shots} == {(i, p) for i in range(STEPS) for p in range(len(names))}
    for shot in shots:
        values = sorted(numbers(both.twin.steps[shot.step].before[names[shot.parameter]]))
        size = max(map(abs, values))
        both.same(shot.norm, root_sum(values), size)
        for share, found in zip(SNAPSHOT_QUANTILES, shot.quantiles, strict=True):
            at = share * (len(values) - 1)
            low, high = values[math.floor(at)], values[math.ceil(at)]
            both.same(
                found, low + (high - low) * (at - math.floor(at)), size, what=(names[shot.parameter], share)
            )


# --- the layers: LayerSpec -------------------------------------------------------------------------------------------


def test_layers(both: Both) -> None:
    first = both.twin.steps[0]
    compared = 0
    for spec in both.run.architecture:
        kept = first.calls.get((spec.name, 0))
        if kept is None or not isinstance(kept.module, nn.Linear | nn.Conv2d):
            continue
        weight = first.before[f"{spec.name}.weight"]
        units = [numbers(weight[u]) for u in range(len(weight))]
        assert (spec.fan_out, spec.fan_in) == (len(units), len(units[0]))
        square = mean([w * w for unit in units for w in unit])
        both.same(spec.weight_variance, spec.fan_in * square)
        both.same(spec.unit_variety, mean([spread(column) for column in zip(*units, strict=True)]) / square)
        bias = first.before.get(f"{spec.name}.bias")
        both.same(spec.bias_variance, 0.0 if bias is None else mean([b * b for b in numbers(bias)]))
        assert not spec.bias_centres
        assert kept.entry is not None
        both.same(spec.input_second_moment, mean([v * v for v in numbers(kept.entry)]))
        assert spec.batch == kept.output.numel() // spec.fan_out
        samples = [numbers(s) for s in kept.entry]
        # more than 128 features are looked at in every so many
        apart = max(1, len(samples[0]) // 128)
        looked = [list(column) for column in zip(*(s[::apart] for s in samples), strict=True)]
        tolerance = 1e-5  # the samples are kept in float32
        whole = mean([v * v for column in looked for v in column])
        assert spec.input_variety == pytest.approx(mean([spread(c) for c in looked]) / whole, rel=tolerance)
        sizes = [s for s in (root_sum(c) for c in looked) if s > 0]
        assert spec.input_disparity == pytest.approx(
            math.log10(max(sizes) / min(sizes)), rel=1e-3, abs=tolerance
        )
        compared += 1
    assert compared >= (0 if first.named else 1)


@pytest.mark.parametrize("centred", [True, False])
def test_a_bias_that_takes_the_mean_away(centred: bool) -> None:
    """b = -1/2 W 1, one unit after the other: 1/2 is the mean of the sigmoid before it."""
    seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, CLASSES))
    with torch.no_grad():
        for unit in range(CLASSES):
            of_unit = math.fsum(numbers(net[2].weight[unit]))
            net[2].bias[unit] = -0.5 * of_unit * (1.0 if centred else 1.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train() -> None:
        F.cross_entropy(net(torch.randn(ROWS, 5)), torch.randint(CLASSES, (ROWS,))).backward()
        optimizer.step()

    assert [s.bias_centres for s in watched(train).model.architecture] == [False, centred]


def test_units_and_inputs_that_are_all_alike() -> None:
    seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, CLASSES))
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(1, 5).expand(6, 5))
        net[2].weight.zero_()
    x = torch.randn(1, 5).expand(ROWS, 5) * torch.tensor([0.0, 1.0, 1.0, 1.0, 1e4])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def train() -> None:
        F.cross_entropy(net(x), torch.randint(CLASSES, (ROWS,))).backward()
        optimizer.step()

    first, last = watched(train).model.architecture
    assert first.unit_variety == pytest.approx(0.0, abs=1e-12)
    assert first.input_variety == pytest.approx(0.0, abs=1e-12)
    sizes = [abs(v) for v in numbers(x[0]) if v != 0]  # the feature that is all zero is left out
    assert first.input_disparity == pytest.approx(math.log10(max(sizes) / min(sizes)), rel=1e-5)
    assert (last.unit_variety, last.weight_variance) == (0.0, 0.0)
