"""The labels in scripts/labels.json, proved by training: a sick script does not learn; cured, it does."""

from __future__ import annotations

import contextlib
import json
import math
import re
import runpy
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from unvanish.schema.finding import Cause, Kind, Verdict

HERE = Path(__file__).resolve().parent / "scripts"
LABELS: dict[str, dict[str, Any]] = json.loads((HERE / "labels.json").read_text(encoding="utf-8"))
SICK = sorted(name for name, label in LABELS.items() if label["verdict"] == "sick")
LAST = 3  # the loss lines at the end that are averaged


def losses(script: Path, model: dict[str, Any], printed: str) -> tuple[float, float]:
    """The first loss that the script printed of this model, and the mean of its last few."""
    values = [float(text) for text in re.findall(model["loss"]["pattern"], printed)]
    assert len(values) > LAST, f"{script.name} printed {len(values)} losses of {model['name']}"
    return values[0], math.fsum(values[-LAST:]) / LAST


def run(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the script prints when it is run as `python script`."""
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.syspath_prepend(str(script.parent))
    capsys.readouterr()
    with contextlib.suppress(SystemExit):  # of `sys.exit(main())`; a script that failed prints too few losses
        runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out


def cured(name: str, folder: Path) -> Path:
    """The script with its cure written in, as a file of its own."""
    source = (HERE / name).read_text(encoding="utf-8")
    for old, new in LABELS[name]["cure"]["replace"]:
        assert source.count(old) == 1, f"{name} holds {old!r} {source.count(old)} times"
        source = source.replace(old, new)
    twin = folder / name
    twin.write_text(source, encoding="utf-8")
    return twin


def learned(model: dict[str, Any], last: float) -> bool:
    return last < model["loss"]["learned_below"]


def stuck(model: dict[str, Any], last: float) -> bool:
    return math.isnan(last) or last > model["loss"]["stuck_above"]


def test_every_script_has_a_label_and_half_of_them_are_sick() -> None:
    assert sorted(LABELS) == sorted(path.name for path in HERE.glob("*.py"))
    assert len(SICK) * 2 == len(LABELS) == 10


@pytest.mark.parametrize("name", sorted(LABELS))
def test_label_speaks_the_words_of_the_contract(name: str) -> None:
    label = LABELS[name]
    verdicts = [model["verdict"] for model in label["models"]]
    assert set(verdicts) <= set(get_args(Verdict))
    assert label["verdict"] == ("sick" if "sick" in verdicts else "healthy")
    for model in label["models"]:
        assert set(model["kinds"]) <= set(get_args(Kind))
        assert set(model["causes"]) <= set(get_args(Cause))
        assert bool(model["kinds"]) == bool(model["causes"]) == (model["verdict"] == "sick")
    assert ("cure" in label) == (label["verdict"] == "sick")
    assert "unvanish" not in (HERE / name).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LABELS))
def test_plain_run_proves_the_label(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(HERE / name, monkeypatch, capsys)
    for model in LABELS[name]["models"]:
        _, last = losses(HERE / name, model, printed)
        proof = stuck if model["verdict"] == "sick" else learned
        assert proof(model, last), f"{name}, {model['name']}: labelled {model['verdict']}, ended at {last}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SICK)
def test_cured_twin_learns(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = cured(name, tmp_path)
    printed = run(twin, monkeypatch, capsys)
    for model in LABELS[name]["models"]:
        _, last = losses(twin, model, printed)
        assert learned(model, last), f"{name} with {LABELS[name]['cure']['what']}: ended at {last}"


@pytest.mark.parametrize("name", sorted(LABELS))
def test_the_noted_proof_supports_the_label(name: str) -> None:
    """Three seeds each, noted in labels.json when the script was written."""
    for model in LABELS[name]["models"]:
        for kind, runs in model["proof"].items():
            proof = stuck if (kind == "plain" and model["verdict"] == "sick") else learned
            assert len(runs) == 3
            for _, last in runs:
                assert proof(model, math.nan if last is None else last)
