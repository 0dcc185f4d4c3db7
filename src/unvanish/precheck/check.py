"""The check before training: predict, measure, judge, and say which single change would carry the net."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from unvanish.diagnose.facts import facts_of
from unvanish.errors import UsageError
from unvanish.precheck.bare import bare_sentence, lost, predict_changes
from unvanish.precheck.changes import try_changes
from unvanish.precheck.depth import depth_of
from unvanish.precheck.layers import AGAIN, FIRST, gains_of, layer_checks, mean_gain, total_decades
from unvanish.precheck.measure import PROBES, Autocast, Measured, measure
from unvanish.precheck.signal import Flow, flow_of
from unvanish.precheck.thin import thinned
from unvanish.precheck.verdict import judge
from unvanish.precheck.zeros import after_zeros
from unvanish.probe.batch import Loss, LossFunction, as_call
from unvanish.probe.discover import unwrap
from unvanish.probe.once import describe_model
from unvanish.schema.call import Batch
from unvanish.schema.check import Check, LayerCheck
from unvanish.schema.finding import Diagnosis, LossSummary, ModelDiagnosis, NotChecked, Verdict
from unvanish.schema.run import ModelInfo, ModelRun
from unvanish.treatment import activations
from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.catalogue import flow_candidates
from unvanish.treatment.draw import quiet_rng

__version__ = sys.modules["unvanish"].__version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model that is to be checked, with one call of it.

    `info`: what a script's optimizers make of it; `record` and `gradients`: what its real backward pass showed, where
    that is over and can't be made again.
    """

    model: nn.Module
    batch: Batch
    loss: Loss | None = None
    info: ModelInfo | None = None
    autocast: Autocast = ()
    gradients: Mapping[str, float | None] | None = None
    record: ModelRun | None = None


def check(model: nn.Module, batch: Any, loss_fn: LossFunction | None = None, *, seed: int = 0) -> Diagnosis:
    """Say before training whether the learning signal will get through: predicted, measured, and what would carry it.

    `batch` is the model's input, a tuple (input, target) or a dict of keyword arguments. With a
    `loss_fn(output, target)` one real backward pass is looked at, too. The model is as before afterwards: weights,
    .grad, buffers, mode, hooks and all random states.

    Raises:
        UsageError: no model, or a batch that can't be read. CaptureError: the model fails on the batch.
    """
    _check_model(model)
    return check_all([subject_of(model, batch, loss_fn)], seed=seed)


def subject_of(
    model: nn.Module, batch: Any, loss_fn: LossFunction | None = None, *, name: str | None = None
) -> Subject:
    """What a user hands in, read. `name`: how the model is called; by default as its class is.

    Raises:
        UsageError: a batch that can't be read.
    """
    inner = unwrap(model)
    call, loss = as_call(inner, batch, loss_fn)
    return Subject(model=inner, batch=call, loss=loss, info=describe_model(inner, name))


def check_all(subjects: Sequence[Subject], records: Sequence[ModelRun] = (), *, seed: int = 0) -> Diagnosis:
    """One diagnosis for all models of a script; `records` of those that can't be run again."""
    made = [check_one(subject, seed=seed) for subject in subjects]
    made += [check_record(record) for record in records if record.traces]
    return Diagnosis(
        version=__version__,
        models=tuple(m for m, _ in made),
        run="",
        checks=tuple(c for _, c in made),
    )


def check_one(subject: Subject, *, seed: int = 0) -> tuple[ModelDiagnosis, Check]:
    """The verdict on one model, and all numbers behind it."""
    began = time.perf_counter()
    info = subject.info or describe_model(subject.model)
    subject, thin = _thin(subject)
    measured = measure(
        subject.model,
        subject.batch,
        info=info,
        loss=subject.loss,
        probes=PROBES,
        seed=seed,
        autocast=subject.autocast,
    )
    if subject.gradients is not None and measured.gradients is None:
        measured = replace(measured, gradients=subject.gradients)
    if subject.record is not None and subject.record.traces and measured.at_loss is None:
        measured = replace(measured, at_loss=facts_of(subject.record))
    gains, flow = gains_of(measured), flow_of(measured)
    ahead = after_zeros(subject.model, subject.batch, flow, seed=seed, autocast=subject.autocast)
    rows = layer_checks(measured, gains)
    predicted = mean_gain(gains, predicted=True)
    found = None if measured.bare else mean_gain(gains, predicted=False)
    recurrent = any(row.why_no_prediction == AGAIN for row in rows)  # time steps are no depth
    depth = None if recurrent else depth_of(len(rows), predicted, found)
    candidates = flow_candidates(
        measured.run.architecture,
        None if depth is None else depth.greatest,
        recurrent=any(isinstance(m, nn.RNNBase | nn.RNNCellBase) for m in subject.model.modules()),
        hidden=_hidden(subject),
    )
    signal: float | None = (ahead or flow).entry
    if measured.bare:
        changes, skipped = predict_changes(subject.model, subject.batch, candidates, seed=seed)
        signal = total_decades(gains)
    else:
        changes, skipped = try_changes(
            subject.model, subject.batch, candidates, seed=seed, autocast=subject.autocast
        )
    made = Check(
        model=info.name,
        layers=rows,
        depth=depth,
        predicted_gain=predicted,
        measured_gain=found,
        signal=signal,
        changes=changes,
        wall_seconds=time.perf_counter() - began,
    )
    if measured.bare:
        return _predicted_only(info, signal, skipped), made
    return _diagnosis(info, measured, ahead or flow, rows, (*thin, *skipped), clipped=_clips(subject)), made


def _hidden(subject: Subject) -> frozenset[str]:
    """The hidden activations of the net, wherever they stand."""
    with quiet_rng(subject.model):
        anatomy = read_anatomy(subject.model, None, subject.batch)
    names = {activations.name_of(m) for m in anatomy.hidden} | set(anatomy.functional)
    return frozenset(name for name in names if name is not None)


def check_record(record: ModelRun) -> tuple[ModelDiagnosis, Check]:
    """The verdict on tensors that no module holds, from the script's one real backward pass."""
    began = time.perf_counter()
    facts = facts_of(record)
    measured = Measured(run=record, flow=facts, places=(), variances=(), at_loss=facts)
    flow = flow_of(measured)
    why = "the script calls no module that holds its parameters, so that nothing can be run again"
    mend = "put the layers into an nn.Module and call that"
    skipped = (NotChecked(what="predictions, random signals and changes", why=f"{why}; {mend}"),)
    levels = [s for profile in facts.profiles[:1] for s in profile.layers]
    made = Check(
        model=record.info.name,
        layers=tuple(LayerCheck(name=s.layer, signal=s.raw, why_no_prediction=why) for s in levels),
        depth=None,
        predicted_gain=None,
        measured_gain=None,
        signal=flow.entry,
        changes=(),
        wall_seconds=time.perf_counter() - began,
    )
    return _diagnosis(record.info, measured, flow, (), skipped, clipped=False), made


def _diagnosis(
    info: ModelInfo,
    measured: Measured,
    flow: Flow,
    rows: tuple[LayerCheck, ...],
    skipped: tuple[NotChecked, ...],
    *,
    clipped: bool,
) -> ModelDiagnosis:
    judgement = judge(measured, flow, clipped=clipped)
    loss = measured.at_loss.model.traces[0] if measured.at_loss is not None else None
    unknown: dict[str, int] = {}
    for row in rows:
        if row.why_no_prediction and row.why_no_prediction != FIRST:
            unknown[row.why_no_prediction] = unknown.get(row.why_no_prediction, 0) + 1
    silent = tuple(
        NotChecked(what=f"prediction for {count} layer{'s' if count > 1 else ''}", why=why)
        for why, count in unknown.items()
    )
    return ModelDiagnosis(
        name=info.name,
        verdict=judgement.verdict,
        steps=0,
        loss=LossSummary(first=loss.loss if loss else None, last=None, chance=loss.chance if loss else None),
        findings=judgement.findings,
        skipped=(*silent, *skipped),
        reason=judgement.reason,
    )


def _predicted_only(
    info: ModelInfo, decades: float | None, skipped: tuple[NotChecked, ...]
) -> ModelDiagnosis:
    """Without weights theory alone speaks; it gives no findings, as those are measured."""
    nothing = NotChecked(what="measurement", why="the model is on the meta device and has no weights")
    verdict: Verdict = "sick" if lost(decades) else "inconclusive" if decades is None else "healthy"
    return ModelDiagnosis(
        name=info.name,
        verdict=verdict,
        steps=0,
        loss=LossSummary(first=None, last=None, chance=None),
        findings=(),
        skipped=(nothing, *skipped),
        reason=f"{bare_sentence(decades)}.",
    )


def _thin(subject: Subject) -> tuple[Subject, tuple[NotChecked, ...]]:
    batch, cut, said = thinned(subject.model, subject.batch, subject.autocast)
    if not said:
        return subject, ()
    loss = subject.loss
    if loss is not None:
        loss = None if cut is None else replace(loss, targets=cut(loss.targets))
    why = f"{said} say the same in a fraction of the time"
    note = NotChecked(what="measurement on the whole batch", why=why)
    return replace(subject, batch=batch, loss=loss), (note,)


def _clips(subject: Subject) -> bool:
    """Whether the script clipped the gradient's norm before its first step."""
    return subject.record is not None and any(math.isfinite(c) for c in subject.record.clips)


def _check_model(model: object) -> None:
    if isinstance(model, type):
        raise UsageError(f"received the class {model.__name__}, not a model", "instantiate it first")
    if not isinstance(model, nn.Module):
        raise UsageError(f"received a {type(model).__name__}, not an nn.Module", "pass the model to check")
    if not any(True for _ in model.parameters()):
        raise UsageError(
            "the model has no parameters", "there is nothing to train in it; pass the trained model"
        )
