"""The product of factors as rows in decades, from the model's output down to one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unvanish.present import words
from unvanish.present.series import number, spread
from unvanish.schema.chain import Chain, Factor, Fork, Recurrence
from unvanish.schema.graph import place

ROWS = 60
CHAINS = 60
FORKS = 12  # of one chain, evenly over the way
WAYS = 6
TIME_STEPS = 120
TRIVIAL = 0.005  # decades; a factor of one (a view, a transpose) is no row of its own
LOST = 0.05  # decades that such factors may come to together, in a very deep net, before each of them counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Factors that follow each other, as one. `decades` is their sum; `predicted` None if one has none."""

    label: str
    kind: str
    factors: int
    decades: float
    predicted: float | None
    bound: float | None


def chain_rows(chain: Chain, limit: int = ROWS) -> tuple[Row, ...]:
    """The factors worth a row, grouped with their neighbours when there are more than `limit`."""
    kept = [f for f in chain.factors if not abs(f.decades) < TRIVIAL]
    if abs(sum(f.decades for f in chain.factors if abs(f.decades) < TRIVIAL)) > LOST:
        kept = [f for f in chain.factors if f.decades != 0]
    groups: list[list[Factor]] = [[f] for f in kept]
    if len(kept) > limit:
        size = math.ceil(len(kept) / limit)
        groups = [kept[i : i + size] for i in range(0, len(kept), size)]
    return tuple(_row(g) for g in groups)


def chains_view(chains: Sequence[Chain]) -> list[dict[str, Any]]:
    """One waterfall for each chain, at most CHAINS of them."""
    return [_chain_view(chains[i]) for i in spread(len(chains), CHAINS)]


def _chain_view(chain: Chain) -> dict[str, Any]:
    rows, level, low, high = [], 0.0, 0.0, 0.0
    for row in chain_rows(chain):
        end = level + row.decades
        stop = None if math.isfinite(end) else ("nan" if math.isnan(row.decades) else "zero")
        rows.append(
            {
                "label": row.label,
                "kind": row.kind,
                "factors": row.factors,
                "gain": words.plain(power(row.decades), 3),
                "decades": number(row.decades),
                "text": words.decades(row.decades),
                "from": number(level) if math.isfinite(level) else None,
                "to": number(end),
                "predicted": number(row.predicted),
                "bound": number(row.bound),
                "mark": stop,
            }
        )
        level = end
        if math.isfinite(end):
            low, high = min(low, end), max(high, end)
    return {
        "parameter": chain.parameter,
        "layer": chain.layer,
        "place": place(chain.layer),
        "step": chain.step,
        "depth": chain.depth,
        "sampled": chain.sampled,
        "output_layer": chain.output_layer,
        "rows": rows,
        "low": number(low),
        "high": number(high),
        "total": number(chain.decades),
        "total_text": words.decades(chain.decades),
        "sentence": words.attribution_sentence(chain),
        "attribution": _attribution(chain),
        "forks": [_fork(chain.forks[i]) for i in spread(len(chain.forks), FORKS)],
        "more_forks": max(len(chain.forks) - FORKS, 0),
        "recurrences": [_recurrence(r) for r in chain.recurrences[:8]],
        "uses": chain.uses,
        "ends": {
            "output_norm": words.plain(chain.output_norm, 3),
            "signal_norm": words.plain(chain.signal_norm, 3),
            "last_factor": words.plain(chain.last_factor, 3),
            "gradient_norm": words.plain(chain.gradient_norm, 3),
        },
    }


def _attribution(chain: Chain) -> list[dict[str, Any]]:
    parts = [(p, float(getattr(chain.attribution, p))) for p in words.PARTS]
    return [
        {
            "part": part,
            "label": words.part_words(chain, part),
            "decades": number(value),
            "text": words.decades(value),
        }
        for part, value in parts
        if not abs(value) < TRIVIAL
    ]


def _fork(fork: Fork) -> dict[str, Any]:
    """A place with several ways: how much of the signal takes each of them."""
    return {
        "kind": fork.kind,
        "layer": fork.layer,
        "gain": words.plain(fork.gain, 3) if fork.gain is not None else None,
        "ways": [
            {
                "label": w.label,
                "share": number(w.share, 3),
                "norm": words.plain(w.norm, 3),
                "followed": w.followed,
            }
            for w in fork.ways[:WAYS]
        ],
        "more": max(len(fork.ways) - WAYS, 0),
    }


def _recurrence(recurrence: Recurrence) -> dict[str, Any]:
    """The signal at each time step in decades relative to the last one; None where there is no number."""
    steps = [recurrence.steps[i] for i in spread(len(recurrence.steps), TIME_STEPS)]
    last = steps[-1].signal_norm if steps else 0.0
    reference = _log(last) if last > 0 and math.isfinite(last) else 0.0
    gain = recurrence.gain_per_step
    return {
        "layer": recurrence.layer,
        "fused": recurrence.fused,
        "total": len(recurrence.steps),
        "steps": [t.step for t in steps],
        "signal": [
            number(_log(t.signal_norm) - reference, 4) if 0 < t.signal_norm < math.inf else None
            for t in steps
        ],
        "gain_per_step": words.plain(gain, 3) if gain is not None else None,
    }


def _row(group: Sequence[Factor]) -> Row:
    first, last = group[0], group[-1]
    kinds = {f.kind for f in group}
    predicted = [f.predicted for f in group]
    label = words.factor_label(first)
    if len(group) > 1:
        modules = [f.module for f in group if f.module] or [first.name, last.name]
        label = f"{modules[0]} to {modules[-1]}"
    return Row(
        label=label,
        kind=first.kind if len(kinds) == 1 else "several",
        factors=len(group),
        decades=sum(f.decades for f in group),
        predicted=sum(_log(p) for p in predicted if p) if all(predicted) else None,
        bound=_log(first.bound) if len(group) == 1 and first.bound else None,
    )


def power(decades: float) -> float:
    """10 to the power of `decades`, infinite where a float can't hold it, NaN for NaN."""
    return math.inf if decades > 308 else 10.0**decades


def _log(gain: float) -> float:
    return math.log10(gain) if gain > 0 else -math.inf
