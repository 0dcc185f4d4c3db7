"""The same trials on a real Ray cluster of three machines (as Ray's own tests make one), one of them killed."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_runners
import pytest
import rough_runners

import unvanish
from unvanish.errors import UsageError
from unvanish.schema.treatment import Prescription, TreatmentResult
from unvanish.treatment.catalogue import Candidate
from unvanish.verify.engines import machine
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.engines.ray import ClusterJob, RayEngine
from unvanish.verify.engines.seat import Place, check, versions
from unvanish.verify.experiment import Plan, run_experiment
from unvanish.verify.trial import Engine, Target, TrialOutcome, TrialSpec

HAVE_RAY = importlib.util.find_spec("ray") is not None
# on a busy machine a node of Ray can be lost for minutes, whatever is tried: asked for by hand
ASKED = os.environ.get("UNVANISH_RAY_TESTS") == "1"
needs_ray = pytest.mark.skipif(
    not (HAVE_RAY and ASKED), reason="a real cluster of Ray: set UNVANISH_RAY_TESTS=1"
)
SOURCE = str(Path(unvanish.__file__).parents[1])
PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")


def spec(name: str, seed: int = 0, note: Path | None = None, **options: Any) -> TrialSpec:
    target = Target(program="x", arguments=() if note is None else (str(note),))
    return TrialSpec(
        candidate=name, prescriptions=(), target=target, seed=seed, **{"seconds": 60.0, **options}
    )


def values(outcome: TrialOutcome) -> TrialOutcome:
    """All but the clock."""
    return replace(outcome, wall_seconds=0.0)


def in_order(outcomes: Iterator[TrialOutcome] | list[TrialOutcome]) -> list[TrialOutcome]:
    return sorted(map(values, outcomes), key=lambda o: (o.spec.candidate, o.spec.seed))


def persistently(start: Callable[..., Any], **options: Any) -> Any:
    """On a busy machine a node of Ray gives itself up when its agents are slow to come (ray-project/ray#65983)."""
    for attempt in range(4):
        with socket.socket() as a, socket.socket() as b, socket.socket() as c:
            for free in (a, b, c):
                free.bind(("", 0))
            ports = {name: s.getsockname()[1] for name, s in zip(PORTS, (a, b, c), strict=True)}
        try:
            return start({**options, **ports})
        except Exception:
            if attempt == 3:
                raise
    return None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    started = persistently(lambda o: Cluster(initialize_head=True, head_node_args=o), num_cpus=1)
    for _ in range(2):
        persistently(lambda o: started.add_node(**o), num_cpus=1)
    yield started
    started.shutdown()


# --- without a cluster --------------------------------------------------------------------------------------


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ray" else find(name, *a)
    )
    with pytest.raises(UsageError, match=r"not installed; pip install 'unvanish\[ray\]'"):
        RayEngine(1, fake_runners.by_name)


@needs_ray
def test_an_address_where_nobody_is_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError, match=rf"no Ray cluster at {address}.*; correct RAY_ADDRESS"):
        RayEngine(1, fake_runners.by_name)


@needs_ray
@pytest.mark.parametrize(
    ("nodes", "threads", "room"),
    [
        ([{"CPU": 4.0}], 1, ([4], 0.0)),
        ([{"CPU": 4.0}, {"CPU": 3.0}, {"CPU": 1.0}], 2, ([2, 1], 0.0)),
        ([{"CPU": 16.0, "GPU": 1.0}], 1, ([16], 0.0625)),
        ([{"CPU": 4.0, "GPU": 8.0}], 1, ([4], 1.0)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], 1, ([8], 0.25)),  # a CPU gives other numbers than a GPU
        ([{"memory": 1.0}], 1, ([], 0.0)),
    ],
)  # fmt: skip
def test_room(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], threads: int, room: object
) -> None:
    from unvanish.verify.engines import connect

    dead = {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 9.0}}
    known = [dead, *({"Alive": True, "Resources": n} for n in nodes)]
    monkeypatch.setattr(connect.ray, "nodes", lambda: known)
    assert connect.room(threads) == room


def test_a_machine_with_other_versions_is_refused_by_name() -> None:
    check(Place(host="node7", versions=versions()))
    with pytest.raises(UsageError, match=r"node7 has torch 0\.1 instead of .*install them there"):
        check(Place(host="node7", versions=replace(versions(), torch="0.1")))


# --- the same as on this machine ----------------------------------------------------------------------------


def candidate(name: str) -> Candidate:
    return Candidate(name=name, title=name, prescriptions=(Prescription(treatment="init"),), safety="safe")


@needs_ray
@pytest.mark.slow
def test_one_machine_killed_in_the_middle_and_the_same_table(cluster: Any, tmp_path: Path) -> None:
    plan = Plan(
        candidates=tuple(map(candidate, ("learns", "sometimes", "lucky", "wild", "breaks"))),
        target=Target(program="x", arguments=(str(tmp_path / "ray"),)),
        learning_rate_factors=(0.3, 1.0),
    )
    doomed = next(iter(cluster.worker_nodes))
    raylet = doomed.all_processes["raylet"][0].process.pid
    notes = tmp_path / "ray"

    def kill() -> None:
        while not notes.exists() or f" {raylet}\n" not in notes.read_text():
            time.sleep(0.01)
        cluster.remove_node(doomed, allow_graceful=False)

    with RayEngine(None, fake_runners.noted, address=cluster.address) as engine:
        assert engine.workers == 3
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        there = run_experiment(plan, engine=engine)
    killer.join(60)
    assert not killer.is_alive()
    here = replace(plan, target=Target(program="x", arguments=(str(tmp_path / "local"),)))
    with LocalEngine(3, fake_runners.noted) as local:
        table = run_experiment(here, engine=local)
    (lost,) = (
        line.rpartition(" ")[0] for line in notes.read_text().splitlines() if line.endswith(f" {raylet}")
    )
    assert _starts(notes) - _starts(tmp_path / "local") == Counter({lost: 1})  # done again elsewhere
    assert not _starts(tmp_path / "local") - _starts(notes)
    assert _comparable(there) == _comparable(table)
    assert there.chosen == "learns"


def _starts(notes: Path) -> Counter[str]:
    return Counter(line.rpartition(" ")[0] for line in notes.read_text().splitlines())


def _comparable(table: TreatmentResult) -> str:
    return repr(replace(table, wall_seconds=0.0))  # as text: NaN is not equal to NaN


SCRIPT = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    from shapes import WIDTH, noise  # a module beside the script, with a state that a second trial must not find used
    torch.manual_seed(4)
    x = torch.randn(256, 8, generator=noise)
    y = (x[:, 0] > 0).long()
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True, num_workers=2)
    net = nn.Sequential(nn.Linear(8, WIDTH), nn.Sigmoid(), nn.Dropout(0.1), nn.Linear(WIDTH, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for epoch in range(5):
        for a, b in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(a), b)
            loss.backward()
            optimizer.step()
            print("step")
"""


@needs_ray
@pytest.mark.slow
def test_a_real_script_gives_the_same_numbers_bit_for_bit(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "shapes.py").write_text(
        "import torch\nWIDTH = 16\nnoise = torch.Generator().manual_seed(1)\n"
    )
    target = Target(program="script.py", directory=str(tmp_path))
    trials = [
        TrialSpec(candidate=name, prescriptions=prescriptions, target=target, seed=seed, steps=12, trace=True)
        for name, prescriptions in (
            ("baseline", ()),
            ("relu", (Prescription(treatment="activation", parameters={"kind": "relu"}),)),
        )
        for seed in (0, 1)
    ]
    runner = "unvanish.launch.trial:run_trial"
    with LocalEngine(1, runner) as local:
        here = [values(o) for o in local.run(trials)]
        again = [values(o) for o in local.run(trials[:1])]
    with RayEngine(1, runner, address=cluster.address) as engine:
        there = [values(o) for o in engine.run(trials)]
    assert [o.error for o in here] == [None] * 4 and all(len(o.losses) == 12 for o in here)
    assert len({o.losses for o in here}) == 4
    assert again == here[:1]  # whatever ran before it
    assert there == here  # in the same order, too: one worker


# --- trouble ------------------------------------------------------------------------------------------------


@needs_ray
@pytest.mark.slow
def test_a_trial_that_loses_its_worker_is_tried_once_more(cluster: Any, tmp_path: Path) -> None:
    trials = [spec(n, i, tmp_path / "starts") for i, n in enumerate(("twice", "once", "simple", "learns"))]
    with RayEngine(2, fake_runners.kills_the_worker, address=cluster.address) as engine:
        found = {o.spec.candidate: o for o in engine.run(trials)}
    assert set(found) == {t.candidate for t in trials}
    assert "lost 2 times: The actor is dead because its worker process has died" in (
        found["twice"].error or ""
    )
    assert [found[n].error for n in ("once", "simple", "learns")] == [None] * 3
    assert sorted((tmp_path / "starts").read_text().split()) == [
        "learns",
        "once",
        "once",
        "simple",
        "twice",
        "twice",
    ]


@needs_ray
def test_seats_that_never_come_up_are_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from unvanish.verify.engines import cluster

    class Actor:
        class place:  # noqa: N801  # a method, as Ray has it
            remote = staticmethod(lambda: "a reference")

    from ray.exceptions import RayActorError

    killed: list[object] = []
    lost = RayActorError(error_msg="It is dead.\nModuleNotFoundError: No module named 'unvanish'. And more.")

    def get(_: object) -> None:
        raise lost

    monkeypatch.setattr(cluster, "room", lambda _: ([2, 2], 0.0))
    monkeypatch.setattr(
        cluster.ray, "remote", lambda **_: lambda _: type("", (), {"remote": lambda *_: Actor()})
    )
    monkeypatch.setattr(cluster.ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(cluster.ray, "get", get)
    monkeypatch.setattr(cluster.ray, "kill", lambda actor, no_restart: killed.append(actor))
    near, far = multiprocessing.Pipe()
    job = ClusterJob(address="local", runner="a:b", workers=None, threads=1, memory_bytes=None)
    with (
        near,
        far,
        pytest.raises(UsageError, match="comes up on the Ray cluster: ModuleNotFoundError: No module"),
    ):
        cluster._Pool(job, far).run([spec("ok"), spec("ok", 1)])
    assert len(killed) >= 3


@needs_ray
@pytest.mark.slow
def test_rough_trials_are_the_same_rows(cluster: Any) -> None:
    deeds = (
        "segfaults",
        "interrupts",
        "hangs_with_children",
        "exits_with_children",
        "takes_200_megabytes",
        "ok",
    )
    limits = {"steps": 91_000_000 + os.getpid(), "memory_bytes": 150 * 2**20}
    trials = [spec(deed, seconds=1.5 if deed == "hangs_with_children" else 60.0, **limits) for deed in deeds]

    def rows(engine: Engine) -> list[TrialOutcome]:
        return [replace(o, losses=()) for o in in_order(engine.run(trials))]  # they hold process ids

    with RayEngine(2, rough_runners.run, address=cluster.address) as engine:
        there = rows(engine)
        assert not _sleepers()
        outcomes = engine.run([spec("ok"), trials[2]])
        assert next(outcomes).error is None
        start = time.monotonic()
        outcomes.close()  # type: ignore[attr-defined]
        assert time.monotonic() - start < 5
        assert [o.error for o in engine.run([spec("ok")])] == [None]
        assert _gone(_sleepers)
    with LocalEngine(2, rough_runners.run) as local:
        assert there == rows(local)
    assert sum(o.error is not None for o in there) == 5


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_lost_makes_failed_rows_and_is_found_again(cluster: Any) -> None:
    with RayEngine(1, rough_runners.run, address=cluster.address) as engine:
        outcomes = engine.run([spec("ok"), spec("ok", 1), spec("hangs_with_children", 2), spec("ok", 3)])
        found = [next(outcomes), next(outcomes)]
        assert engine._process is not None
        engine._process.kill()  # as Ray does with those who spoke to a cluster that is no more
        found += outcomes
        assert [o.error is None for o in found] == [True, True, False, False]
        assert [o.spec.seed for o in found] == [0, 1, 2, 3]
        assert "the Ray cluster was lost" in (found[-1].error or "")
        assert [o.error for o in engine.run([spec("ok")])] == [None]
        both = engine.run([spec("ok"), spec("ok", 1)])
        next(both)
        with pytest.raises(UsageError, match="running trials already"):
            next(engine.run([spec("ok")]))
        assert next(both).error is None


CALLER = """
    import sys
    sys.path.insert(0, {folder!r})
    from unvanish.verify.engines.ray import RayEngine
    from unvanish.verify.trial import Target, TrialSpec
    trials = [
        TrialSpec(candidate=deed, prescriptions=(), target=Target(program="x"), seed=0, steps={mark})
        for deed in ("ok", "hangs_with_children", "hangs_with_children")
    ]
    with RayEngine(2, "rough_runners:run", address={address!r}) as engine:
        for outcome in engine.run(trials):
            print("an outcome", flush=True)
"""


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(("number", "own"), [(signal.SIGINT, False), (signal.SIGKILL, True)])
def test_the_caller_s_end_is_the_end_of_all(
    cluster: Any, tmp_path: Path, number: signal.Signals, own: bool
) -> None:
    folder, mark = str(Path(__file__).parent), 91_000_000 + os.getpid()
    address = "local" if own else cluster.address
    (tmp_path / "caller.py").write_text(
        textwrap.dedent(CALLER.format(folder=folder, mark=mark, address=address))
    )
    caller = subprocess.Popen(
        [sys.executable, str(tmp_path / "caller.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "an outcome\n"
    until = time.monotonic() + 20
    while len(_sleepers()) < 4:
        assert time.monotonic() < until
        time.sleep(0.05)
    below = machine.descendants(caller.pid)
    start = time.monotonic()
    os.killpg(caller.pid, number)
    out, err = caller.communicate(timeout=30)
    assert time.monotonic() - start < 15
    assert out == "" and (own or err.rstrip().endswith("KeyboardInterrupt"))  # nothing of Ray's own
    assert _gone(_sleepers)
    assert _gone(lambda: [p for p in below if Path(f"/proc/{p}").exists()])


def _sleepers() -> list[str]:
    mark = f"sleep\0{91_000_000 + os.getpid()}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if path.read_bytes() == mark else []
        except OSError:
            continue
    return found


def _gone(what: Callable[[], list[Any]]) -> bool:
    until = time.monotonic() + 15
    while what() and time.monotonic() < until:
        time.sleep(0.05)
    return not what()
