"""Ranks that a launcher starts side by side, each watched by itself: one folder, one voice, without a collective."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from families import DDP, TORCHRUN, TRAIN, children, start, the_run

from unvanish import family
from unvanish.schema.launch import Launch, launch_of
from unvanish.schema.run import Run, RunInfo
from unvanish.session import load
from unvanish.store.meeting import AT_HOME_SECONDS, PATIENCE_SECONDS, Meeting, RankPlace

AGREED = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "WORLD_SIZE": "2"}


@pytest.mark.slow
def test_torchrun_starts_unvanish_in_each_rank(tmp_path: Path) -> None:
    # One write a line: a print without a buffer is two, and the ranks' would run into each other.
    (tmp_path / "train.py").write_text(DDP + "import os\nddp()\nos.write(1, f'{sys.argv}\\n'.encode())\n")
    done = start(tmp_path, *TORCHRUN, "-m", "unvanish", "run", "--json", "-", "train.py", "x")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("['train.py', 'x']\n") == 2
    (told,) = json.loads(done.stdout[done.stdout.index("{") :].replace("['train.py', 'x']\n", ""))["models"]
    assert (told["verdict"], told["steps"]) == ("healthy", 25)
    assert done.stderr.count("Verdict") == done.stderr.count("Run kept in") == 1
    assert children(tmp_path) == ["rank1"]
    run = the_run(tmp_path)
    assert (run.status, run.info.ranks, run.skipped) == ("finished", 2, ())
    alone = [load(run.path + "/children/rank1"), load(Path(run.path) / "run.sqlite")]
    assert [len(r.models) for r in alone] == [1, 1]


@pytest.mark.slow
def test_exit_codes_of_ranks_pass_through(tmp_path: Path) -> None:
    """Both fail, rank 1 first; torchrun tells so of both."""
    (tmp_path / "train.py").write_text(DDP + "import os\nddp()\nsys.exit(5 + int(os.environ['RANK']))\n")
    done = start(tmp_path, *TORCHRUN, "-m", "unvanish", "run", "--quiet", "train.py")
    assert done.returncode == 1
    assert "exitcode  : 5" in done.stderr or "exitcode  : 6" in done.stderr
    assert len(the_run(tmp_path).models[0].steps) == 25


@pytest.mark.slow
def test_watch_in_each_rank_shares_a_folder(tmp_path: Path) -> None:
    source = (
        DDP.replace("    torch.manual_seed(dist.get_rank())", "    w = unvanish.watch(net, optimizer)")
        .replace("import sys,", "import unvanish, sys,")
        .replace("    dist.destroy_process_group()", "    return dist.get_rank(), w")
        + """
rank, w = ddp()
verdict = w.close().verdict
dist.barrier(); dist.destroy_process_group()
if rank == 0:
    import os, pathlib
    print(verdict, [m.steps for m in w.diagnose().models], sorted(os.listdir(w.path / "children")), w.run().info.ranks)
else:
    os_path = w.path
    assert os_path.parts[-2:] == ("children", "rank1"), os_path
"""
    )
    (tmp_path / "train.py").write_text(source)
    done = start(tmp_path, *TORCHRUN, "train.py")
    assert (done.returncode, done.stdout) == (0, "healthy [25] ['rank1'] 2\n"), done.stderr
    the_run(tmp_path)


def test_ranks_that_never_speak_to_each_other(tmp_path: Path) -> None:
    """A sweep under srun: the second process joins the first one's folder, and is quiet."""
    (tmp_path / "s.py").write_text(TRAIN + "train(60 if os.environ['RANK'] == '0' else 25, 4, 0.02)\n")
    command = [sys.executable, "-m", "unvanish", "run", "s.py"]
    environment = {**os.environ, **AGREED, "OMP_NUM_THREADS": "1"}
    several = [
        subprocess.Popen(
            command, cwd=tmp_path, env={**environment, "RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=60)[1] for process in several]
    assert [process.returncode for process in several] == [0, 0]
    assert said[0].count("Run kept in") == 1 and said[1] == ""
    assert children(tmp_path) == ["rank1"]
    assert the_run(tmp_path).info.ranks == 2


@pytest.mark.slow
def test_children_of_a_launcher_on_every_node_join_the_run_of_the_first(tmp_path: Path) -> None:
    """`srun unvanish run -m torch.distributed.run ...`: a launcher for each node; two of them here, on one."""
    (tmp_path / "train.py").write_text(DDP + "ddp()\n")
    words = [
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--master-port",
        "29517",
    ]
    several = []
    for node in "01":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SLURM_PROCID": node, "SLURM_NTASKS": "2"}
        environment |= {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}
        command = [sys.executable, "-m", "unvanish", "run", *words, "--node-rank", node, "train.py"]
        several.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=120)[1] for process in several]
    assert [process.returncode for process in several] == [0, 0], said
    assert said[0].count("Run kept in") == 1 and "Run kept" not in said[1]
    assert children(tmp_path) == ["rank0", "rank1"]
    run = the_run(tmp_path)
    assert [(m.info.name, len(m.steps)) for m in run.models] == [("net", 25)]


def test_a_rank_whose_disk_is_its_own_has_a_run_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(TRAIN + "train()\n")
    done = start(tmp_path, "-m", "unvanish", "run", "s.py", **AGREED, RANK="1")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("unvanish: rank 0's run is not in this machine's ") and "ranks-of-" in line
    run = the_run(tmp_path)
    assert len(run.models[0].steps) == 25 and run.status == "finished"
    assert any("share no disk" in s.why for s in run.skipped)
    assert any(s.what == "rank 0" for s in run.skipped)  # there is no record of it here


# --- what a launcher says ----------------------------------------------------------------------------------


def test_what_launchers_tell() -> None:
    torchrun = {"RANK": "1", "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", **AGREED}
    found = launch_of(torchrun)
    assert found == Launch(rank=1, ranks=2, key=found.key if found else "", one_node=True)
    assert found and launch_of({**torchrun, "RANK": "0", "LOCAL_RANK": "0"}).key == found.key  # type: ignore[union-attr]
    again = launch_of({**torchrun, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert again and again.attempt == 2 and again.key != found.key
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "77"}
    assert launch_of(slurm) is None  # the batch script itself: one process
    job = launch_of({**slurm, "SLURM_STEP_ID": "0"})
    assert job and (job.rank, job.ranks, job.one_node) == (3, 8, False)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "first", "WORLD_SIZE": "2"},
    ],
)
def test_who_is_alone(environment: dict[str, str]) -> None:
    assert launch_of(environment) is None


# --- the meeting -------------------------------------------------------------------------------------------


def meeting(out: Path, rank: int, *, one_node: bool = False) -> Meeting:
    return Meeting(out, Launch(rank=rank, ranks=4, key="k", one_node=one_node))


def test_the_note_is_found_and_taken_away(tmp_path: Path) -> None:
    place = RankPlace(meeting(tmp_path, 1))
    assert place.find("rank1", last=False) is None
    first = meeting(tmp_path, 0)
    first.announce(tmp_path / "the-run")
    assert place.find("rank1", last=False) == tmp_path / "the-run" / "children" / "rank1"
    assert place.find("rank1", last=False) == tmp_path / "the-run" / "children" / "rank1-2"
    first.end()
    assert [p.name for p in tmp_path.iterdir()] == ["the-run"]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "[]",
        '{"run": 3}',
        json.dumps({"run": "old", "host": "elsewhere", "pid": 1, "started": "1", "at": 1.0}),
        json.dumps(
            {"run": "old", "host": os.uname().nodename, "pid": 2**22, "started": "1", "at": time.time()}
        ),
    ],
    ids=["empty", "no object", "no path", "of another machine, old", "of a process that is gone"],
)
def test_a_note_of_an_earlier_launch_is_not_believed(note: str, tmp_path: Path) -> None:
    (tmp_path / ".ranks-k.json").write_text(note)
    assert meeting(tmp_path, 1).find() is None


def test_a_note_from_another_machine_is_believed_while_it_is_fresh(tmp_path: Path) -> None:
    note = {"run": "r", "host": "elsewhere", "pid": 1, "started": "1", "at": time.time() - 20}
    (tmp_path / ".ranks-k.json").write_text(json.dumps(note))
    assert meeting(tmp_path, 1).find() == tmp_path / "r"


@pytest.mark.parametrize("one_node", [True, False])
def test_ranks_of_a_node_agree_where_rank_0_is_not_seen(one_node: bool, tmp_path: Path) -> None:
    clock = [0.0]
    places = [RankPlace(meeting(tmp_path, r, one_node=one_node), lambda: clock[0]) for r in (2, 3)]
    assert [p.find("x", last=False) for p in places] == [None, None]
    clock[0] = (AT_HOME_SECONDS if one_node else PATIENCE_SECONDS) + 1
    lead, other = (p.find(f"rank{r}", last=False) for r, p in zip((2, 3), places, strict=True))
    assert lead is not None and other == lead / "children" / "rank3"
    assert [p.leads for p in places] == [True, False]
    assert all("own" in (p.said or "") for p in places)
    places[1].end()
    assert (tmp_path / f".ranks-k-{os.uname().nodename}.json").exists()
    places[0].end()
    assert not list(tmp_path.glob(".ranks*"))


# --- reading -----------------------------------------------------------------------------------------------


def run(
    name: str, models: tuple[str, ...], *, rank: int | None = None, ranks: int = 1, **about: object
) -> Run:
    from families import model_run

    info = RunInfo(
        id=name, created="2026-01-01T00:00:00+00:00", command=(), script=None, seed=None, versions={}, device="",
        pid=1, rank=rank, ranks=ranks,
    )  # fmt: skip
    extra = {family.FIRST_STEP: str(about.pop("at", 1.0)), family.ATTEMPT: str(about.pop("attempt", 0))}
    status: object = about.pop("status", "finished")
    ended = "2026-01-01T00:00:09+00:00"
    return Run(
        info=info, path=f"/runs/{name}", status=status, ended=ended, message=None,  # type: ignore[arg-type]
        models=tuple(model_run(i, m) for i, m in enumerate(models)), extra=extra,
    )  # fmt: skip


def test_models_of_processes_stand_side_by_side_in_the_order_in_which_they_began() -> None:
    own = run("main", ("net", "critic"), at=5.0)
    made = family.combine(
        own, [run("b", ("net",), at=9.0, status="cut_off"), run("a", ("net", "critic"), at=2.0)]
    )
    names = [m.info.name for m in made.models]
    assert names == ["net (process 1)", "critic (process 1)", "net", "critic", "net (process 2)"]
    assert [m.info.index for m in made.models] == [0, 1, 2, 3, 4]
    assert [(s.model, s.what) for s in made.skipped] == [(4, "process 2")]
    assert made.path == own.path and made.info == own.info


def test_the_newest_attempt_counts_and_the_older_is_kept_apart() -> None:
    old = [run(f"rank{r}", ("net",), rank=r, ranks=2, attempt=0, at=1.0, status="cut_off") for r in (0, 1)]
    new = [run(f"rank{r}-2", (f"net{r}",), rank=r, ranks=2, attempt=1, at=8.0) for r in (0, 1)]
    made = family.combine(run("main", ()), [*old, *new])
    assert [m.info.name for m in made.models] == ["net0", "net1"]  # two stages, say
    (said,) = made.skipped
    assert said.what == "earlier attempts" and said.why.endswith("is in children/: rank0, rank1")


def test_two_trainings_of_several_ranks_in_one_script_are_told_apart() -> None:
    """As torch.multiprocessing.spawn called twice makes them: folders rank0, rank1, rank0-2, rank1-2."""
    first = [run(f"rank{r}", ("a",), rank=r, ranks=2, at=1.0 + r / 10) for r in (1, 0)]
    second = [run(f"rank{r}-2", ("b",), rank=r, ranks=2, at=2.0 - r / 10) for r in (0, 1)]
    made = family.combine(run("main", ()), [*second, *first])
    names = [m.info.name for m in made.models]
    assert {n.split(" ")[0] for n in names[:2]} == {"a"} and {n.split(" ")[0] for n in names[2:]} == {"b"}
    assert all(n.endswith("(2 ranks, training 2)") for n in names[2:]) and not any(
        "training" in n for n in names[:2]
    )
    assert [m.info.index for m in made.models] == [0, 1, 2, 3]


def test_a_rank_that_is_missing_or_cut_off_is_said() -> None:
    ranks = [
        run(f"rank{r}", ("net",), rank=r, ranks=4, status="cut_off" if r == 2 else "finished")
        for r in (0, 2, 3)
    ]
    made = family.combine(run("main", ()), ranks)
    said = {s.what: s.why for s in made.skipped}
    assert said["rank 2"].startswith("cut off after ")
    assert said["rank 1"].startswith("3 of 4 ranks left a record")


def test_waiting_for_the_others_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "_all_ended", lambda _: False)
    began = time.monotonic()
    family.await_children(tmp_path, 0.2)
    assert 0.2 <= time.monotonic() - began < 2.0
