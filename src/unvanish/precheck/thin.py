"""A smaller batch where the whole one would take long: gains are means over samples, and a few of these suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.precheck.measure import LARGE, Autocast, as_it_was
from unvanish.probe.noted import mapped, tensors_in
from unvanish.schema.call import Batch

BUDGET = 4e9  # products of one forward pass: a tenth of a second on a CPU, or a few
FEWEST_ROWS, FEWEST_UNDER_NORM = 2, 16
LENGTH = 64  # tokens of each row, where a row alone is too much
_TRIED_ROWS = 2

Cut = Callable[[Any], Any]


def thinned(model: nn.Module, batch: Batch, autocast: Autocast = ()) -> tuple[Batch, Cut | None, str]:
    """(the batch, how other tensors of its rows are cut to it, what was done); None and "" where it stays whole."""
    if sum(p.numel() for p in model.parameters()) < LARGE or any(p.is_meta for p in model.parameters()):
        return batch, None, ""
    given = [t for t in tensors_in((batch.args, batch.kwargs)) if t.dim() > 0]
    sizes = {t.shape[0] for t in given}
    if len(sizes) != 1 or (rows := sizes.pop()) <= _TRIED_ROWS:
        return batch, None, ""
    tried = _cut(batch, _rows(rows, _TRIED_ROWS))
    cost = _cost(model, tried, autocast)
    if cost is None or cost * rows <= BUDGET:
        return batch, None, ""
    least = (
        FEWEST_UNDER_NORM if any("BatchNorm" in type(m).__name__ for m in model.modules()) else FEWEST_ROWS
    )
    kept = min(rows, max(least, int(BUDGET / cost)))
    rows_cut = _rows(rows, kept)
    smaller, said = _cut(batch, rows_cut), f"{kept} of its {rows} rows"
    one = given[0]
    if kept * cost > 2 * BUDGET and len(given) == 1 and one.dim() == 2 and not one.is_floating_point():
        shorter = _cut(smaller, lambda t: t[:, :LENGTH])
        if one.shape[1] > LENGTH and _cost(model, shorter, autocast) is not None:
            return shorter, None, f"{said}, {LENGTH} of {one.shape[1]} tokens of each"
    return smaller, (lambda value: mapped(value, rows_cut)), said


def _rows(whole: int, kept: int) -> Callable[[Tensor], Tensor]:
    return lambda t: t[:kept] if t.dim() > 0 and t.shape[0] == whole else t


def _cut(batch: Batch, cut: Callable[[Tensor], Tensor]) -> Batch:
    return Batch(args=mapped(batch.args, cut), kwargs=mapped(batch.kwargs, cut))


def _cost(model: nn.Module, batch: Batch, autocast: Autocast) -> float | None:
    """Products per row of one forward pass; None where the model does not take this batch."""
    rows = next(t.shape[0] for t in tensors_in((batch.args, batch.kwargs)) if t.dim() > 0)
    found = [0.0]

    def count(module: nn.Module, _: Any, output: Any) -> None:
        weights = [p for p in module.parameters(recurse=False) if p.dim() > 1]
        made = next((t for t in tensors_in(output) if t.dim() > 1), None)
        if not weights or made is None or isinstance(module, nn.Embedding):
            return
        units = made.shape[1] if weights[0].dim() > 2 else made.shape[-1]
        found[0] += sum(w.numel() for w in weights) * made.numel() / max(1, units)

    handles = [m.register_forward_hook(count) for m in model.modules()]
    try:
        with as_it_was(model, autocast), torch.no_grad():
            model(*batch.args, **batch.kwargs)
    except Exception:  # noqa: BLE001 - the whole batch will show what is wrong
        return None
    finally:
        for handle in handles:
            handle.remove()
    return found[0] / max(1, rows)
