"""`unvanish run` on ten ordinary scripts, each in its author's style: the verdict that training has proved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LABELS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "scripts" / "labels.json").read_text(encoding="utf-8")
)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", LABELS)
def test_the_verdict_through_json(script: str, scripts: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "run", "--json", "d.json", str(scripts / script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    data = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    label = LABELS[script]
    assert data["schema"] == 1
    assert data["verdict"] == label["verdict"], done.stderr[-2000:]
    assert "Verdict  " in done.stderr and "Why      " in done.stderr and "Next     " in done.stderr
    by_name = {m["name"]: m for m in data["models"]}
    assert set(by_name) == {m["name"] for m in label["models"]}
    for expected in label["models"]:
        model = by_name[expected["name"]]
        assert model["verdict"] == expected["verdict"], model
        kinds = [f["kind"] for f in model["findings"]]
        if not expected["kinds"]:
            assert kinds == []
            continue
        first = model["findings"][0]
        assert first["kind"] in expected["kinds"]
        assert first["cause"] in expected["causes"]
        assert first["evidence"] and first["treatments"]
        if expected["first_layer_is_one_of"]:
            assert first["layers"][0] in expected["first_layer_is_one_of"]
    assert not any(s["what"].startswith("fault") for m in data["models"] for s in m["skipped"])


def test_a_run_that_is_stopped_early_says_what_it_looked_at(scripts: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "unvanish", "run", "--steps", "20", "--quiet", "--json", "d.json",
         str(scripts / "plain_sequential.py")],
        cwd=tmp_path, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    data = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    (model,) = data["models"]
    assert model["steps"] == 20  # --steps stopped it
    assert model["skipped"] == []  # every kind is looked for
