"""The neutral view of a run: all that a page draws, computed here, ready for JSON, finite throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from unvanish.present import words
from unvanish.present.layers import layers_view, sizes_view
from unvanish.present.river import river_view
from unvanish.present.series import loss_view, loss_window, mark, number, weights_view
from unvanish.present.signal import Cell, named_operations, signal_map, signal_window
from unvanish.present.trials import trials_view
from unvanish.present.waterfall import chains_view
from unvanish.schema.chain import Chain
from unvanish.schema.finding import Diagnosis, Evidence, Finding, ModelDiagnosis
from unvanish.schema.run import ModelRun, Run
from unvanish.schema.treatment import TreatmentResult

VIEW_VERSION = 1


def build_view(
    run: Run,
    diagnosis: Diagnosis,
    chains: tuple[Chain, ...],
    treatment: TreatmentResult | None = None,
) -> dict[str, Any]:
    """Everything that the page shows. No number in it is NaN or infinite: these become explicit marks."""
    told = {m.name: m for m in diagnosis.models}
    models = [
        _model_view(model, told.get(model.info.name), [c for c in chains if c.model == model.info.name])
        for model in run.models
    ]
    return {
        "view": VIEW_VERSION,
        "version": diagnosis.version,
        "verdict": diagnosis.verdict,
        "run": _run_view(run),
        "models": models,
        "treatment": trials_view(treatment, run.path, run.info.script) if treatment else None,
        "incidents": [{"step": i.step, "where": i.where, "what": i.what} for i in run.incidents],
        "skipped": [{"what": s.what, "why": s.why} for s in run.skipped if s.model is None],
    }


def build_window(model: ModelRun, first: int, last: int) -> dict[str, Any]:
    """Loss and signal map of some steps, as exact as they were recorded: what a page that is served zooms into."""
    return {
        "first": first,
        "last": last,
        "loss": loss_window(model, first, last),
        "signal": signal_window(model, first, last),
    }


def _run_view(run: Run) -> dict[str, Any]:
    return {
        "id": run.info.id,
        "path": run.path,
        "created": run.info.created,
        "ended": run.ended,
        "script": run.info.script,
        "name": PurePath(run.info.script).name if run.info.script else run.info.id,
        "command": " ".join(run.info.command),
        "seed": run.info.seed,
        "device": run.info.device,
        "versions": dict(run.info.versions),
        "status": run.status,
        "status_text": words.status_line(run),
        "events_dropped": run.events_dropped,
    }


def _model_view(model: ModelRun, told: ModelDiagnosis | None, chains: Sequence[Chain]) -> dict[str, Any]:
    named = named_operations(model)
    signal = signal_map(model, named)
    rows = {name: i for i, name in enumerate(signal["rows"])}
    for chain in chains:  # a parameter is looked for as well as a layer
        rows.setdefault(chain.parameter, rows.get(chain.layer, -1))
    return {
        "name": model.info.name,
        "class_name": model.info.class_name,
        "verdict": told.verdict if told else "inconclusive",
        "headline": _headline(told),
        "facts": _facts(model),
        "loss": loss_view(model, told),
        "signal": signal,
        "chains": chains_view(chains),
        "layers": layers_view(model, signal["rows"], named),
        "sizes": sizes_view(model),
        "river": river_view(model, named),
        "weights": weights_view(model, _most_starved(told, chains, signal)),
        "findings": [_finding_view(f, rows) for f in told.findings] if told else [],
        "skipped": [{"what": s.what, "why": s.why} for s in told.skipped] if told else [],
    }


def _headline(told: ModelDiagnosis | None) -> dict[str, str]:
    if told is None:
        return {
            "word": "Not diagnosed",
            "claim": "No rule looked at this model.",
            "verdict": "Not diagnosed: no rule looked at this model.",
            "why": "The diagnosis and the run do not name the same models.",
            "next": "Diagnose the run again.",
        }
    return {
        "word": words.VERDICT_WORDS[told.verdict],
        "claim": words.capital(words.claim(told)),
        "verdict": words.verdict_line(told),
        "why": words.why_line(told),
        "next": words.next_line(told),
    }


def _facts(model: ModelRun) -> list[dict[str, str]]:
    info = model.info
    facts = [
        {"name": "model", "value": info.class_name},
        {"name": "parameters", "value": f"{sum(p.numel for p in info.parameters):,}"},
        {"name": "tensors", "value": f"{len(info.parameters):,}"},
        {"name": "steps", "value": f"{len(model.steps):,}"},
    ]
    facts.append({"name": "looked at", "value": words.looked_at(model)})
    for optimizer in info.optimizers:
        rates = ", ".join(words.plain(r) for r in dict.fromkeys(optimizer.learning_rates))
        facts.append({"name": "optimizer", "value": f"{optimizer.class_name}, rate {rates}"})
    return facts


def _most_starved(told: ModelDiagnosis | None, chains: Sequence[Chain], signal: dict[str, Any]) -> str | None:
    """The layer to look at first: that of the first finding, else of the chain, else of the map."""
    for finding in told.findings if told else ():
        if finding.layers:
            return finding.layers[0]
    if chains:
        return chains[0].layer
    cells: list[tuple[float, str]] = [
        (_depth(cell), row) for row, cell in zip(signal["rows"], signal["profile"], strict=True)
    ]
    return min(cells)[1] if cells else None


def _depth(cell: Cell) -> float:
    if isinstance(cell, float):
        return cell
    return float("-inf") if cell == "zero" else float("inf")


def _row_of(layer: str, rows: Mapping[str, int]) -> int | None:
    """The row of the map that a layer, or a parameter of it, lies in; None where there is none."""
    name = layer
    while name:
        if rows.get(name, -1) >= 0:
            return rows[name]
        name = name.rpartition(".")[0]
    # a module whose weight belongs to a part of it, used as a function
    parts = {row for known, row in rows.items() if row >= 0 and known.startswith(f"{layer}.")}
    return parts.pop() if len(parts) == 1 else None


def _finding_view(finding: Finding, rows: Mapping[str, int]) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "kind_text": words.KIND_WORDS[finding.kind],
        "cause": finding.cause,
        "cause_text": words.CAUSE_WORDS[finding.cause],
        "severity": finding.severity,
        "confidence": number(finding.confidence, 3),
        "first_step": finding.first_step,
        "layers": list(finding.layers),
        "layer_rows": [_row_of(layer, rows) for layer in finding.layers],
        "summary": finding.summary,
        "evidence": [_evidence_view(e, rows) for e in finding.evidence],
        "advice": [
            {"treatment": name, "text": text}
            for name, text in zip(finding.treatments, words.advice(finding), strict=True)
        ],
    }


def _evidence_view(evidence: Evidence, rows: Mapping[str, int]) -> dict[str, Any]:
    first, last = evidence.steps
    return {
        "layer": evidence.layer,
        "row": _row_of(evidence.layer, rows),
        "first": first,
        "statistic": evidence.statistic,
        "value": words.plain(evidence.value, 3),
        "threshold": words.plain(evidence.threshold, 3),
        "mark": mark(evidence.value),
        "steps": str(first) if first == last else f"{first} to {last}",
        "source": evidence.source,
    }
