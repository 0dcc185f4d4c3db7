"""What scripts do to their process costs one trial at most, and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rough_runners

import unvanish
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_marks = itertools.count(100_000 + os.getpid() * 10)  # seconds to sleep, by which a process is found again


def spec(deed: str, **options: object) -> TrialSpec:
    given = {"seed": 0, "seconds": 60.0, "steps": next(_marks), **options}
    return TrialSpec(candidate=deed, prescriptions=(), target=Target(program="x"), **given)  # type: ignore[arg-type]


def left_of(specs: list[TrialSpec]) -> list[str]:
    """The command lines of what these trials started and still runs."""
    marks = {str(s.steps) for s in specs}
    lines = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if marks & {w for word in words for w in word.split()}:
            lines.append(" ".join(words))
    return lines


@pytest.fixture(scope="module", params=["fork", pytest.param("fresh", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    with LocalEngine(1, rough_runners.run, fork=request.param == "fork") as started:
        yield started


@pytest.fixture(scope="module")
def forking() -> Iterator[LocalEngine]:
    with LocalEngine(1, rough_runners.run) as started:
        yield started


def one(engine: LocalEngine, trial: TrialSpec) -> TrialOutcome:
    (outcome,) = engine.run([trial])
    assert outcome.spec == trial
    return outcome


ENDS = {
    "segfaults": "killed by signal 11, SIGSEGV",
    "aborts": "killed by signal 6, SIGABRT",
    "interrupts": "KeyboardInterrupt",
    "hangs_with_the_lock": "took longer than 0.5 s and was ended",
    "stops": "took longer than 0.5 s and was ended",
    "asks": "EOFError",
    "unpicklable": "_OddError",
    "exits_with_children": "ended by itself with code 3",
    "hangs_with_children": "took longer than 0.5 s and was ended",
    "leaves_shared_memory": "took longer than 0.5 s and was ended",
    "prints_and_exits": "ended by itself with code 5 (the very last words)",
    "kills_its_group": "killed by signal 9, SIGKILL",
    "closes_all": "ended by itself with code 1",
}


@pytest.mark.parametrize("deed", ENDS)
def test_a_bad_end_is_said_and_costs_one_trial(engine: LocalEngine, deed: str) -> None:
    trial = spec(deed, seconds=60.0 if "0.5 s" not in ENDS[deed] else 0.5)
    supervisor = one(engine, spec("ok")).losses[1]
    start = time.monotonic()
    outcome = one(engine, trial)
    assert ENDS[deed] in (outcome.error or "ran")
    assert time.monotonic() - start < 10
    assert left_of([trial]) == []
    assert not Path(f"/dev/shm/unvanish-{trial.steps}").exists()  # noqa: S108
    assert one(engine, spec("ok")).losses[1] == supervisor  # which is still the same


@pytest.mark.parametrize(
    "deed",
    [
        "leaves_a_child", "leaves_a_daemon", "leaves_a_stubborn_child", "leaves_a_pool", "leaves_threads",
        "leaves_an_exit_handler", "prints_100_megabytes", "closes_its_streams", "forks",
    ],
)  # fmt: skip
def test_what_runs_on_is_ended_with_its_trial(engine: LocalEngine, deed: str) -> None:
    trial = spec(deed)
    outcome = one(engine, trial)
    assert outcome.error is None
    assert left_of([trial]) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(outcome.losses[0]), 0)
    assert one(engine, spec("ok")).losses[1] == outcome.losses[1]


def test_no_trial_sees_what_another_left(engine: LocalEngine) -> None:
    trials = [spec("leaves_its_state"), spec("finds_no_state"), spec("finds_no_state")]
    assert [o.error for o in engine.run(trials)] == [None] * 3


@pytest.mark.parametrize(
    ("deed", "ends"),
    [
        ("takes_200_megabytes", True),
        ("children_take_200_megabytes", True),
        (
            "children_share_60_megabytes",
            False,
        ),  # as DataLoader workers share the data: 300 MB by the sum of RSS
        ("maps_a_file_of_200_megabytes", False),
    ],
)
def test_memory_is_held_to_its_limit(forking: LocalEngine, deed: str, ends: bool) -> None:
    outcome = one(forking, spec(deed, memory_bytes=150 * 2**20))
    if ends:
        assert "held more than 150 MiB of memory and was ended" in (outcome.error or "ran")
    else:
        assert outcome.error is None
    assert one(forking, spec("ok")).error is None


def test_the_engine_s_own_limit_holds_where_the_spec_names_none() -> None:
    with LocalEngine(1, rough_runners.run, memory_bytes=100 * 2**20) as engine:
        outcome = one(engine, spec("takes_200_megabytes"))
    assert "held more than 100 MiB" in (outcome.error or "ran")


def test_what_is_printed_is_kept_nowhere(forking: LocalEngine) -> None:
    supervisor = int(one(forking, spec("prints_100_megabytes")).losses[1])
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{supervisor}/status").read_text())
    assert int(peak) * 1024 < 80 * 2**20


def test_a_trial_that_kills_its_supervisor_is_a_row_and_the_rest_goes_on() -> None:
    trials = [spec("kills_its_parent"), spec("ok"), spec("ok")]
    with LocalEngine(1, rough_runners.run) as engine:
        found = list(engine.run(trials))
    assert [o.spec for o in found] == trials
    assert "killed by signal 9, SIGKILL" in (found[0].error or "ran")
    assert [o.error for o in found[1:]] == [None, None]
    assert left_of(trials) == []


def test_a_set_has_the_same_order_in_every_process() -> None:
    with (
        LocalEngine(2, rough_runners.order_of_a_set) as engine,
        LocalEngine(1, rough_runners.order_of_a_set, fork=False) as fresh,
    ):
        orders = {o.losses for e in (engine, fresh) for o in e.run([spec("ok") for _ in range(3)])}
    assert len(orders) == 1


CALLER = """
    import sys
    sys.path.insert(0, {folder!r})
    from unvanish.verify.engines.local import LocalEngine
    from unvanish.verify.trial import Target, TrialSpec
    trials = [
        TrialSpec(candidate=deed, prescriptions=(), target=Target(program="x"), seed=0, steps={mark})
        for deed in ("ok", "hangs_with_children", "hangs_with_children")
    ]
    for outcome in LocalEngine(2, "rough_runners:run").run(trials):
        print(*(int(x) for x in outcome.losses), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_that_is_killed_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    mark = next(_marks)
    (tmp_path / "caller.py").write_text(
        textwrap.dedent(CALLER.format(folder=str(Path(__file__).parent), mark=mark))
    )
    source = str(Path(unvanish.__file__).parents[1])
    caller = subprocess.Popen(
        [sys.executable, str(tmp_path / "caller.py")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert caller.stdout is not None
    processes = [int(word) for word in caller.stdout.readline().split()]
    left = [spec("none", steps=mark)]
    until = time.monotonic() + 20
    while len(left_of(left)) < 4:
        assert time.monotonic() < until
        time.sleep(0.02)
    caller.send_signal(number)
    caller.wait(10)
    caller.stdout.close()
    until = time.monotonic() + 10
    while (left_of(left) or _any_alive(processes)) and time.monotonic() < until:
        time.sleep(0.02)
    assert left_of(left) == [] and not _any_alive(processes)


def _any_alive(processes: list[int]) -> bool:
    return any(Path(f"/proc/{process}").exists() for process in processes)
