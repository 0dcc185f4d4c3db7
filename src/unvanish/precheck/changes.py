"""Try single changes on a copy of the net: theory's gain for each, then one backward pass."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unvanish.diagnose.facts import LOOK_ALIKE
from unvanish.diagnose.rules.vanishing import FORGOTTEN
from unvanish.errors import UnvanishError
from unvanish.precheck.layers import gains_of, mean_gain
from unvanish.precheck.measure import Autocast, measure
from unvanish.precheck.signal import LIMIT, Flow, flow_of
from unvanish.schema.call import Batch
from unvanish.schema.check import Change
from unvanish.schema.finding import NotChecked
from unvanish.treatment.candidate import Candidate
from unvanish.treatment.operate import apply

SAME = 0.25  # decades: signals that differ by less are equally good, and the smaller change comes first
BORDERLINE = -2.0  # decades: below e^-3, and many steps or a larger rate may still make up for it
_NOT_TRIED = "changes of the model"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    candidate: Candidate
    change: Change
    flow: Flow


def try_changes(
    model: nn.Module, batch: Batch, candidates: Sequence[Candidate], *, seed: int, autocast: Autocast = ()
) -> tuple[tuple[Change, ...], tuple[NotChecked, ...]]:
    """(the changes, the best first; what could not be tried, and why). The model itself is not touched."""
    try:
        twin = copy.deepcopy(model)
    except Exception as error:  # noqa: BLE001 - a model may hold anything
        why = f"the model can't be copied ({type(error).__name__}: {error})"
        return (), (NotChecked(what=_NOT_TRIED, why=why[:300]),)
    tried: list[_Tried] = []
    refused: dict[str, list[str]] = {}
    for candidate in candidates:
        try:
            undo = apply(twin, candidate.prescriptions, batch=batch, seed=seed)
        except UnvanishError as error:
            refused.setdefault(error.mistake, []).append(candidate.title)
            continue
        try:
            tried.append(_tried(twin, batch, candidate, seed, autocast))
        except UnvanishError as error:
            refused.setdefault(error.mistake, []).append(candidate.title)
        finally:
            undo.undo()
    skipped = tuple(NotChecked(what=", ".join(titles), why=why) for why, titles in refused.items())
    return tuple(t.change for t in sorted(tried, key=_order)), skipped


def _tried(twin: nn.Module, batch: Batch, candidate: Candidate, seed: int, autocast: Autocast) -> _Tried:
    measured = measure(twin, batch, probes=1, seed=seed, autocast=autocast)
    gains, flow = gains_of(measured), flow_of(measured)
    change = Change(
        name=candidate.name,
        title=candidate.title,
        treatment=candidate.treatment,
        prescriptions=tuple(p.to_dict() for p in candidate.prescriptions),
        predicted_gain=mean_gain(gains, predicted=True),
        measured_gain=None if measured.bare else mean_gain(gains, predicted=False),
        signal=flow.entry,
        carries=flow.carries,
        words=_words(flow),
    )
    return _Tried(candidate=candidate, change=change, flow=flow)


def _order(tried: _Tried) -> tuple[bool, int, int, float]:
    """Those that carry first; of these the nearest to a gain of 1 (in steps of SAME), then the smallest change."""
    off = abs(tried.flow.worst)
    off = off if math.isfinite(off) else 999.0
    return not tried.change.carries, round(off / SAME), tried.candidate.effort, off


def _words(flow: Flow) -> str:
    """What is right or wrong with it, in a few words: the first that holds."""
    faded = 0.0 if flow.faded is None else flow.faded.decades
    alike = flow.told_apart is not None and flow.told_apart < LOOK_ALIKE
    said = (
        (bool(flow.nonfinite), "NaN or infinite"),
        (bool(flow.dead), f"dead: {flow.dead[0].layer if flow.dead else ''} is cut off"),
        (flow.entry == -math.inf, "nothing arrives at the first layers"),
        (flow.entry < BORDERLINE, f"still vanishes: 10^{flow.entry:.1f} arrives"),
        (flow.entry < -LIMIT, f"borderline: 10^{flow.entry:.1f} arrives"),
        (flow.peak > LIMIT, f"explodes backward: 10^{flow.peak:.1f}"),
        (flow.forward > LIMIT, f"explodes forward: 10^{flow.forward:.1f}"),
        (faded < FORGOTTEN, f"fades through time: 10^{faded:.1f}"),
        (alike, "the samples look alike at the last layer"),
    )
    return next((words for holds, words in said if holds), "carries")
