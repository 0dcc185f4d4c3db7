"""unvanish.testing and the pytest plugin, as a user's own test suite has them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn

import unvanish

SUITE = """
import pytest, torch
from torch import nn

def build(depth):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(32, 32), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(32, 4))

def test_shallow(gradients_flow):
    gradients_flow(build(1), torch.randn(16, 32))

def test_deep(gradients_flow):
    gradients_flow(build(12), torch.randn(16, 32))

@pytest.mark.gradients_flow(least=1e-12)
def test_deep_and_meant(gradients_flow):
    gradients_flow(build(12), torch.randn(16, 32))
"""


def sigmoids(depth: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(32, 32), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def test_a_net_that_carries_its_signal_passes() -> None:
    diagnosis = unvanish.testing.assert_gradients_flow(sigmoids(1), torch.randn(16, 32))
    assert diagnosis.verdict == "healthy"


def test_the_failure_explains() -> None:
    batch = (torch.randn(16, 32), torch.randint(0, 4, (16,)))
    with pytest.raises(AssertionError) as caught:
        unvanish.testing.assert_gradients_flow(sigmoids(12), batch, nn.functional.cross_entropy)
    text = str(caught.value)
    assert text.startswith("the learning signal does not get through this model")
    assert re.search(r"^Why .*activation derivatives took \d", text, re.MULTILINE)
    assert re.search(
        r"^Layers .*passes on 0\.0\d+ of the squared signal \(0\.0\d+ predicted\)", text, re.MULTILINE
    )
    assert re.search(r"^Next .*(He init|orthogonal).*would carry it", text, re.MULTILINE)
    assert re.search(r"^Depth .*2 weighted layers", text, re.MULTILINE)


def test_own_limits() -> None:
    x = torch.randn(16, 32)
    unvanish.testing.assert_gradients_flow(sigmoids(12), x, least=1e-12)
    with pytest.raises(AssertionError, match=r"less than 0\.9"):
        unvanish.testing.assert_gradients_flow(sigmoids(2), x, least=0.9)


def pytest_run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(SUITE)
    announced = any(e.value == "unvanish.pytest_plugin" for e in entry_points(group="pytest11"))
    plugin = [] if announced else ["-p", "unvanish.pytest_plugin"]  # set up before it was announced
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "--strict-markers", "-p", "no:cacheprovider", *words,
         "test_suite.py"],
        cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTEST_PLUGINS": ""},
    )  # fmt: skip


def test_the_fixture_and_the_marker(tmp_path: Path) -> None:
    done = pytest_run(tmp_path)
    assert "2 passed" in done.stdout and "1 failed" in done.stdout, done.stdout + done.stderr
    assert re.search(
        "^E +AssertionError: the learning signal does not get through this model", done.stdout, re.MULTILINE
    )
    assert "testing.py" not in done.stdout.split("short test summary")[0].split("FAILURES")[1]


def test_the_plugin_costs_nothing_where_it_is_not_used() -> None:
    code = "import unvanish.pytest_plugin, sys; print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_plugin_is_announced(repository: Path) -> None:
    assert 'unvanish = "unvanish.pytest_plugin"' in (repository / "pyproject.toml").read_text(
        encoding="utf-8"
    )
