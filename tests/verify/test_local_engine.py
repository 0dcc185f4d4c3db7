"""The pool of processes: outcomes, crashes, hangs, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import fake_runners
import pytest

import unvanish
from unvanish.errors import UsageError
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.trial import Target, TrialSpec


def spec(name: str, seed: int = 0, seconds: float = 60.0) -> TrialSpec:
    return TrialSpec(candidate=name, prescriptions=(), target=Target(program="x"), seed=seed, seconds=seconds)


def test_trouble_is_a_row_and_the_rest_goes_on() -> None:
    names = ["ok", "exits", "killed", "hangs", "sys.exit", "nonsense", "fine", "good"]
    with LocalEngine(2, fake_runners.troubled) as engine:
        start = time.monotonic()
        found = {o.spec.candidate: o for o in engine.run([spec(n, seconds=3.0) for n in names])}
        assert time.monotonic() - start < 60
        again = list(engine.run([spec("ok", seed=s) for s in range(4)]))
    assert set(found) == set(names)
    assert "code 7 (last words of a script)" in (found["exits"].error or "")
    assert "signal 9" in (found["killed"].error or "")
    assert "longer than 3 s" in (found["hangs"].error or "")
    assert found["sys.exit"].error == "SystemExit: bye"
    assert "returned a str" in (found["nonsense"].error or "")
    assert [found[n].error for n in ("ok", "fine", "good")] == [None] * 3
    assert [o.error for o in again] == [None] * 4


def test_workers_are_kept_have_their_thread_limit_and_end() -> None:
    with LocalEngine(2, fake_runners.troubled, threads=3) as engine:
        losses = [o.losses for o in engine.run([spec("ok", s) for s in range(8)])]
    trials, threads, workers = (set(column) for column in zip(*losses, strict=True))
    assert len(workers) == 2 and len(trials) == 8  # each trial in a process of its own
    assert threads == {3.0}
    assert os.getpid() not in trials | workers
    for pid in trials | workers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_leaving_early_ends_what_runs_and_the_engine_serves_on() -> None:
    with LocalEngine(2, fake_runners.troubled) as engine:
        outcomes = engine.run([spec("ok"), spec("hangs"), spec("hangs", 1)])
        assert next(outcomes).spec.candidate == "ok"
        start = time.monotonic()
        outcomes.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 10
        assert [o.error for o in engine.run([spec("ok")])] == [None]


def test_a_second_run_beside_the_first_is_refused() -> None:
    with LocalEngine(1, fake_runners.troubled) as engine:
        first = engine.run([spec("ok"), spec("ok", 1)])
        next(first)
        with pytest.raises(UsageError, match="running trials already; close the other iterator first"):
            next(engine.run([spec("ok")]))
        assert next(first).error is None


def test_a_runner_that_does_not_import_fails_each_trial_and_ends() -> None:
    with LocalEngine(1, "no_such_module:run") as engine:
        found = list(engine.run([spec("a"), spec("b")]))
    assert [o.spec.candidate for o in found] == ["a", "b"]
    assert all("no_such_module" in (o.error or "") for o in found)


def test_runners_that_others_can_not_import_are_refused() -> None:
    with pytest.raises(UsageError, match="imported by other processes"):
        LocalEngine(1, lambda _: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="0 workers"):
        LocalEngine(0, fake_runners.troubled)


SCRIPT = """
    import sys
    print("the script runs", flush=True)  # no `if __name__` guard: a child that ran it again would show
    sys.path.insert(0, {folder!r})
    from unvanish.verify.engines.local import LocalEngine
    from unvanish.verify.trial import Target, TrialSpec

    def spec(name, seed):
        return TrialSpec(candidate=name, prescriptions=(), target=Target(program="x"), seed=seed)

    with LocalEngine(2, "fake_runners:troubled") as engine:
        for outcome in engine.run([spec("ok", 1), spec({name!r}, 2), spec({name!r}, 3)]):
            print(outcome.spec.candidate, int(outcome.losses[0]), flush=True)
"""


def _script(tmp_path: Path, name: str) -> subprocess.Popen[str]:
    path = tmp_path / "unguarded.py"
    path.write_text(textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent), name=name)))
    source = str(Path(unvanish.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def test_the_callers_script_is_not_run_again_in_the_workers(tmp_path: Path) -> None:
    process = _script(tmp_path, "ok")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("the script runs") == 1
    assert out.count("ok") == 3


def test_ctrl_c_ends_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    process = _script(tmp_path, "hangs")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    worker = int(lines[1].split()[1])
    time.sleep(0.5)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert err.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
