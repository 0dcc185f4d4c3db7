"""The main job, end to end, on a real net: what the README promises of `unvanish demo`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "demo", "--json", "demo.json"],
        cwd=folder, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


@pytest.fixture(scope="module")
def data(demo: tuple[Path, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((demo[0] / "demo.json").read_text(encoding="utf-8"))
    return result


def test_the_diagnosis(data: dict[str, Any]) -> None:
    diagnosis = data["diagnosis"]
    assert diagnosis["verdict"] == "sick"
    (model,) = diagnosis["models"]
    finding = model["findings"][0]
    assert (finding["kind"], finding["cause"]) == ("vanishing_gradients", "saturating_activation")
    assert finding["layers"][:3] == ["0", "2", "4"]
    parts = finding["attribution"]
    assert sum(parts.values()) < -8 and parts["activation"] < -6  # 11 sigmoids of at most 1/4 each
    assert model["loss"]["last"] == pytest.approx(model["loss"]["chance"], abs=0.05)


def test_the_table_agrees_with_what_is_known(data: dict[str, Any]) -> None:
    """Science: which variants stay stuck, and the gain per layer that says so before any training."""
    rows = {t["name"]: t for t in data["treatment"]["trials"]}
    solutions = ("simplify", "relu_he", "leaky_relu_he", "init", "batchnorm", "residual")
    half_fixes = {"relu_alone": 0.167, "xavier": 0.056, "lsuv": 0.153}
    assert set(rows) == {*solutions, *half_fixes}
    assert data["treatment"]["baseline"]["stuck_seeds"] == 5
    assert data["treatment"]["baseline"]["predicted_gain_per_layer"] == pytest.approx(0.02, rel=0.05)
    for name in solutions:
        assert rows[name]["outcome"] == "cured", rows[name]["why"]
    for name, gain in half_fixes.items():
        assert rows[name]["outcome"] == "no_better" and rows[name]["stuck_seeds"] == 5
        assert rows[name]["predicted_gain_per_layer"] == pytest.approx(gain, rel=0.1)
    for row in rows.values():
        assert row["measured_gain_per_layer"] == pytest.approx(row["predicted_gain_per_layer"], rel=0.25)
    assert data["treatment"]["chosen"] in solutions


def test_what_is_handed_over(demo: tuple[Path, Any], data: dict[str, Any]) -> None:
    recipe = json.loads(Path(data["treatment"]["recipe"]).read_text(encoding="utf-8"))
    assert recipe["prescriptions"]
    page = Path(data["page"]).read_text(encoding="utf-8")
    assert len(page) > 100_000 and "<script" in page
    lines = (demo[1].stdout + demo[1].stderr).splitlines()
    assert not any("\x1b" in line for line in lines)  # no terminal: plain lines
    assert any(line.startswith("     Recipe  ") for line in lines)
    assert any("LSUV" in line and "no better" in line for line in lines)


def test_the_recipe_cures_the_script_in_plain_python(
    data: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    """`unvanish.apply` with the recipe, in the example's own loop: what a user does next."""
    source = (repository / "examples" / "digits_sigmoid.py").read_text(encoding="utf-8")
    rate = json.loads(Path(data["treatment"]["recipe"]).read_text(encoding="utf-8"))["learning_rate"]
    treated = source.replace(
        "    model = build_model()\n",
        f"    import unvanish\n    model = unvanish.apply(build_model(), {data['treatment']['recipe']!r})\n",
    ).replace("lr=0.1", f"lr={rate}")
    assert treated != source
    (tmp_path / "treated.py").write_text(treated, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "treated.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout.split("held-out accuracy")[-1].strip().rstrip("%")) > 70
