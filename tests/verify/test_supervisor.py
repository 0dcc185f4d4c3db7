"""What is imported before a trial begins, and when a fork would not be the same as a fresh process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rough_runners

from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.engines.watch import death, last_words
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks nowhere else")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages that our processes look into first."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def run(engine: LocalEngine, names: str, folder: Path) -> TrialOutcome:
    target = Target(program="x", directory=str(folder))
    (outcome,) = engine.run(
        [TrialSpec(candidate=names, prescriptions=(), target=target, seed=0, seconds=60.0)]
    )
    assert outcome.error is None
    return outcome


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(1, rough_runners.imports) as started:
        yield started


def test_large_packages_are_kept_for_the_next_trial_and_others_are_not(
    installed: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    for name in ("torchvision", "whatever"):
        (installed / f"{name}.py").write_text("")
    assert run(engine, "torchvision whatever", tmp_path).losses[:2] == (0.0, 0.0)
    assert run(engine, "torchvision whatever", tmp_path).losses[:2] == (1.0, 0.0)


def test_a_module_beside_the_script_is_not_taken_for_a_package(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("")
    assert [run(engine, "torchvision", tmp_path).losses[0] for _ in range(2)] == [0.0, 0.0]


def test_a_package_that_does_not_import_again_does_no_harm(
    installed: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    (installed / "torchvision.py").write_text(
        "import os\nif os.getsid(0) != os.getpid(): raise SystemError\n"
    )
    assert [run(engine, "torchvision", tmp_path).losses[0] for _ in range(2)] == [0.0, 0.0]


def test_a_package_that_starts_threads_ends_the_forking(
    installed: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    text = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    (installed / "torchvision.py").write_text(text)
    first, second, third = (run(engine, "torchvision", tmp_path) for _ in range(3))
    # forked; kept, with its thread; so the next ones run in interpreters that have imported nothing
    assert [o.losses[0] for o in (first, second, third)] == [0.0, 0.0, 0.0]
    assert len({o.losses[1] for o in (first, second, third)}) == 1  # the supervisor is the same


TORCH = """
import os
from types import SimpleNamespace
home = os.getpid()
cuda = SimpleNamespace(_is_in_bad_fork=lambda: os.getpid() != home)
optim = SimpleNamespace(SGD=lambda *_, **__: None)
asked = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")
def set_num_threads(n): pass
def zeros(*_, **__): pass
"""
RUNNER = """
import os, torch
from unvanish.verify.trial import TrialOutcome
def run(spec):
    there = "PYTORCH_NVML_BASED_CUDA_CHECK" in os.environ
    return TrialOutcome(spec=spec, losses=(float(torch.home == os.getpid()), float(torch.asked == "1"), float(there)))
"""


@pytest.mark.parametrize("touched", [True, False])
def test_cuda_that_an_import_touched_is_noticed(installed: Path, tmp_path: Path, touched: bool) -> None:
    text = TORCH if touched else TORCH.replace("os.getpid() != home", "False")
    (installed / "torch.py").write_text(text)
    (installed / "runner_with_torch.py").write_text(RUNNER)
    with LocalEngine(1, "runner_with_torch:run") as engine:
        fresh, asked_gently, still_set = run(engine, "any", tmp_path).losses
    assert (fresh, asked_gently) == ((1.0, 0.0) if touched else (0.0, 1.0))
    assert not still_set


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "ended by itself with code 3"),
        (-11, "killed by signal 11, SIGSEGV"),
        (-9, "SIGKILL: often the system's doing, when memory runs out"),
        (-99, "killed by signal 99, unknown"),
    ],
)  # fmt: skip
def test_how_a_process_ended(code: int, text: str) -> None:
    assert death(code).endswith(text)


def test_last_words() -> None:
    assert last_words(b"one\n two \r\n\n  \n") == "two"
    assert last_words("é\n".encode()[1:] + b"x" * 300) == "x" * 200
    assert last_words(b"") == ""
