"""For a user's own test suite: the learning signal must get through this model (also as a pytest fixture)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unvanish.schema.check import Change, Check
from unvanish.schema.finding import Diagnosis

if TYPE_CHECKING:
    import torch

LEAST = math.exp(
    -3.0
)  # of the amplitude that leaves the output; below it SGD stalls (Schoenholz et al. 2016)
MOST = math.exp(3.0)

_ELSEWHERE = ("recurrence", "attention_saturation")  # the signal is lost beside the way to the first layers


def assert_gradients_flow(
    model: torch.nn.Module,
    batch: Any,
    loss_fn: Callable[..., Any] | None = None,
    *,
    least: float = LEAST,
    most: float = MOST,
    seed: int = 0,
) -> Diagnosis:
    """Fail with an explanation where the learning signal does not get through; else give the diagnosis.

    `batch` and `loss_fn` as in unvanish.check. `least` and `most` are the amplitude that may reach the first layers,
    of what leaves the output. Nothing of the model is changed.

    Raises:
        AssertionError: it vanishes, explodes or is cut off; the text says where, by which factor, and what helps.
        UsageError, CaptureError: the model or the batch can't be checked.
    """
    __tracebackhide__ = True
    from unvanish.precheck.check import check  # noqa: PLC0415 - torch is imported when a model is tested, not before

    diagnosis = check(model, batch, loss_fn, seed=seed)
    faults = _faults(diagnosis, least, most)
    if faults:
        raise AssertionError(_explained(diagnosis, faults))
    return diagnosis


def _faults(diagnosis: Diagnosis, least: float, most: float) -> list[str]:
    found = diagnosis.check
    own_limits = (least, most) != (LEAST, MOST)
    said = []
    for model in diagnosis.models:
        for finding in model.findings:
            by_size = finding.kind == "vanishing_gradients" and finding.cause not in _ELSEWHERE
            if finding.severity == "critical" and not (own_limits and by_size):
                said.append(finding.summary)
    if own_limits and found is not None and found.signal is not None and not math.isnan(found.signal):
        reached = 10**found.signal
        if reached < least:
            said.insert(
                0, f"{reached:.3g} of the output's signal reaches the first layers, less than {least:.3g}."
            )
        elif reached > most:
            said.insert(
                0, f"{reached:.3g} times the output's signal reaches the first layers, more than {most:.3g}."
            )
    return said


def _explained(diagnosis: Diagnosis, faults: list[str]) -> str:
    lines = ["the learning signal does not get through this model", ""]
    lines += [f"Why      {fault[:1].upper()}{fault[1:]}" for fault in faults]
    check = diagnosis.check
    if check is None:
        return "\n".join(lines)
    worst = _weakest(check)
    if worst:
        lines.append(f"Layers   {worst}")
    good = [c for c in check.changes if c.carries]
    if good:
        named = [f"{c.title} (gain per layer {_gain(c)})" for c in good]
        lines.append(f"Next     {'; or '.join(named[:3])} would carry it")
    elif check.changes:
        lines.append(
            "Next     none of the single changes that were tried carries it alone; see unvanish check"
        )
    if (
        check.depth is not None
        and check.depth.greatest is not None
        and check.depth.now > check.depth.greatest
    ):
        lines.append(f"Depth    {check.depth.words}")
    return "\n".join(lines)


def _weakest(check: Check) -> str:
    known = [(layer.measured, layer) for layer in check.layers if layer.measured is not None]
    far = sorted(known, key=lambda pair: -abs(math.log(max(pair[0], 1e-300))))[:3]
    return ", ".join(
        f"{layer.name} passes on {gain:.3g} of the squared signal"
        + ("" if layer.predicted is None else f" ({layer.predicted:.3g} predicted)")
        for gain, layer in far
    )


def _gain(change: Change) -> str:
    words = {"predicted": change.predicted_gain, "measured": change.measured_gain}
    return ", ".join(f"{value:.2g} {word}" for word, value in words.items() if value is not None)
