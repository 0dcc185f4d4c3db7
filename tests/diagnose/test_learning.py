"""What the loss curve alone says."""

from __future__ import annotations

import math
import random
from array import array

import pytest

from unvanish.diagnose.learning import contested_models, learning_of
from unvanish.schema.graph import Graph, Operation, Trace
from unvanish.schema.run import ModelInfo, ModelRun


def curve(
    values: list[float],
    *,
    chance: float | None = None,
    unseen: frozenset[int] = frozenset(),
    index: int = 0,
    foreign: bool = False,
) -> ModelRun:
    operation = Operation(
        index=0, name="Addmm", kind="weight", module="a", module_class="Linear", call=0, parents=(),
        parameters=("",) if foreign else ("a.weight",),
    )  # fmt: skip
    trace = Trace(model=index, step=0, backward=0, graph="g", loss=1.0, stats=(), output=None, chance=chance)
    return ModelRun(
        info=ModelInfo(index=index, name=f"m{index}", class_name="M", parameters=(), optimizers=()),
        steps=array("q", range(len(values))),
        seconds=array("d", [0.0] * len(values)),
        losses=array("d", values),
        parameter_steps=array("q"),
        parameter_stats={},
        snapshots=(),
        graphs={"g": Graph(key="g", operations=(operation,))},
        traces=(trace,),
        unseen_losses=unseen,
    )


def noisy(level: list[float], noise: float, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [v + rng.gauss(0, noise) for v in level]


LN10 = math.log(10)
CASES = {
    "learns": (noisy([2.3 * 0.97**i for i in range(100)], 0.05), LN10, "learns"),
    "stuck at chance": (noisy([LN10] * 100, 0.05), LN10, "stuck"),
    "stuck after a transient": (noisy([2.6] * 4 + [2.31] * 96, 0.02), LN10, "stuck"),
    "slow and steady": (noisy([2.9 - 0.003 * i for i in range(150)], 0.01), LN10, "learns"),
    "far above chance and falling": (noisy([40 * 0.99**i for i in range(100)], 0.5), LN10, "stuck"),
    "noise alone": (noisy([1.0] * 200, 0.5), None, "stuck"),
    "falls, chance unknown": (noisy([1.0 * 0.98**i for i in range(100)], 0.02), None, "learns"),
    "rises": (noisy([1.0 + 0.02 * i for i in range(100)], 0.02), None, "worse"),
    "too short": ([2.3] * 6, LN10, "too_short"),
    "turns NaN": ([1.0] * 20 + [math.nan] * 5, None, "non_finite"),
    "turns infinite": ([1.0] * 20 + [math.inf], None, "non_finite"),
    "NaN once, and goes on": (
        noisy([1.0 * 0.95**i for i in range(50)], 0.001) + [math.nan] + [0.05] * 20,
        None,
        "learns",
    ),
    "a loss of 1e-8 that is stuck": (noisy([1e-8] * 60, 1e-10), None, "stuck"),
    "a loss of 1e8 that falls": (noisy([1e8 * 0.95**i for i in range(60)], 1e5), None, "learns"),
    "creeps below chance": (noisy([LN10 + 0.1 - 0.001 * i for i in range(160)], 0.01), LN10, "learns"),
    "a little below chance, and flat": (noisy([LN10 - 0.03] * 160, 0.01), LN10, "stuck"),
    "low, with a spike at the end": ([*noisy([0.5] * 98, 0.02), 9.0, 0.5], LN10, "learns"),
    "a policy's surrogate": (noisy([0.0] * 200, 0.1), None, "contested"),
    "a negative surrogate": (noisy([-0.09] * 200, 0.02), None, "contested"),
    "negative and rising": (noisy([-2.0 + 0.02 * i for i in range(80)], 0.02), None, "worse"),
    "crosses zero once, on its way down": (noisy([1.0 - 0.03 * i for i in range(80)], 0.02), None, "learns"),
    "negative and falling": (noisy([-1.0 - 0.05 * i for i in range(60)], 0.05), None, "learns"),
}


@pytest.mark.parametrize("name", CASES)
def test_curves(name: str) -> None:
    values, chance, expected = CASES[name]
    assert learning_of(curve(values, chance=chance)).status == expected


def test_steps_without_a_loss_are_no_nan() -> None:
    values = noisy([0.97**i for i in range(60)], 0.001)
    values[5] = values[59] = math.nan
    judged = learning_of(curve(values, unseen=frozenset({5, 59})))
    assert judged.status == "learns"
    assert learning_of(curve([math.nan] * 5, unseen=frozenset(range(5)))).status == "no_loss"


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("name", ["learns", "stuck at chance", "noise alone", "rises"])
def test_the_judgement_does_not_depend_on_the_scale(name: str, scale: float) -> None:
    values, chance, expected = CASES[name]
    scaled = curve([v * scale for v in values], chance=None if chance is None else chance * scale)
    assert learning_of(scaled).status == expected


def test_the_first_bad_step_is_named() -> None:
    assert learning_of(curve([1.0] * 7 + [math.inf] * 4)).first_bad_step == 7


def test_models_that_play_against_each_other_are_not_judged_by_the_loss() -> None:
    against = [curve(noisy([0.7] * 50, 0.1, seed=i), index=i, foreign=i == 0) for i in range(2)]
    assert contested_models(against) == {0, 1}
    assert learning_of(against[0], contested=True).status == "contested"
    together = [curve([0.7] * 50, index=i, foreign=i == 0) for i in range(2)]  # one loss for both: partners
    assert contested_models(together) == set()
    assert contested_models(against[:1]) == set()
