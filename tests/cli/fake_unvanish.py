"""The command line with a session made of cardboard, so that its own doings are tested without torch.

Started as a script: ``python fake_unvanish.py run ... script.py``. The script imports ``torch`` (an empty module
beside it), and tells the fake what was seen: ``torch.steps(3)``, ``torch.finding("critical")``, ``torch.stop()``.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import unvanish
from unvanish.errors import RecordError
from unvanish.schema.finding import Diagnosis, Evidence, Finding, LossSummary, ModelDiagnosis

ENGINE = types.ModuleType("unvanish.probe.engine")
SESSION = types.ModuleType("unvanish.session")
TEXT = types.ModuleType("unvanish.present.text")
TOY = types.ModuleType("unvanish.explanation.toy")


class StopTraining(BaseException):
    """As the probe's own."""


class Session:
    """Counts what the script tells it."""

    def __init__(self, *, out: Path, **told: Any) -> None:
        if (out / "refuse").exists():
            raise RecordError("the folder said no", "take another")
        if (out / "fault").exists():
            raise ZeroDivisionError("a fault of ours")
        self.path = out / "the-run"
        self.path.mkdir()
        self.role = told.pop("role")
        told.pop("tell")
        self.told = told
        self.steps = 0
        self.findings: list[Finding] = []

    def start(self) -> None:
        torch = sys.modules["torch"]
        torch.steps = self._set_steps  # type: ignore[attr-defined]
        torch.finding = self._add  # type: ignore[attr-defined]
        torch.told = self.told  # type: ignore[attr-defined]
        torch.stop = self._stop  # type: ignore[attr-defined]

    def finish(self, status: str, message: str | None = None) -> Diagnosis:
        loss = LossSummary(first=1.0, last=1.0, chance=None)
        model = ModelDiagnosis(
            name=f"net {status} {message}",
            verdict="sick" if self.findings else "healthy",
            steps=self.steps,
            loss=loss,
            findings=tuple(self.findings),
            skipped=(),
        )
        models = (model,) if self.steps else ()
        return Diagnosis(version="0", models=models, run=str(self.path), status=status)

    def _set_steps(self, steps: int) -> None:
        self.steps = steps

    def _stop(self) -> None:
        raise StopTraining

    def _add(self, severity: Any) -> None:
        seen = Evidence(layer="a", statistic="s", value=1.0, threshold=2.0, steps=(0, 1), source="a test")
        self.findings.append(
            Finding(
                kind="vanishing_gradients",
                cause="unknown",
                severity=severity,
                confidence=0.5,
                layers=("a",),
                first_step=0,
                summary="\ud800 odd name",
                evidence=(seen,),
            )
        )


def install() -> None:
    """Put the cardboard in the place of the real modules."""
    ENGINE.StopTraining = StopTraining  # type: ignore[attr-defined]
    SESSION.Session = Session  # type: ignore[attr-defined]
    SESSION.Role = types.SimpleNamespace  # type: ignore[attr-defined]
    SESSION.load = lambda path: path  # type: ignore[attr-defined]
    SESSION.chains = lambda run, **_: ()  # type: ignore[attr-defined]
    TEXT.print_diagnosis = lambda d, c, console: console.print(f"VERDICT {d.verdict} {d.models[0].name}")  # type: ignore[attr-defined]
    TEXT.print_chain = lambda chain, console: None  # type: ignore[attr-defined]
    TOY.explain_toy = TOY.toy_text = lambda *a, **k: None  # type: ignore[attr-defined]
    for module in (ENGINE, SESSION, TEXT, TOY):
        sys.modules[module.__name__] = module
    unvanish.session = SESSION  # type: ignore[attr-defined]


if __name__ == "__main__":
    install()
    from unvanish.cli import main

    sys.exit(main())
