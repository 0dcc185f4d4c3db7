"""The record while it is written, after a kill, on a full disk, and where there is nothing to read."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from store_helpers import model_event, run_info, start_writer, step_event

from unvanish.errors import RecordError
from unvanish.schema.run import PARAMETER_STATISTICS
from unvanish.store import RunWriter, list_runs, load_result, read_run, save_result

FILE = "run.sqlite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of five steps and three parameters."""
    writer = RunWriter(tmp_path / "runs" / "a", run_info())
    writer.write([model_event(3), *(step_event(s, 3) for s in range(5))])
    writer.close("finished")
    return tmp_path / "runs" / "a"


def test_a_finished_run_is_one_file(folder: Path) -> None:
    assert [p.name for p in folder.iterdir()] == [FILE]


def test_reading_while_another_process_writes(tmp_path: Path) -> None:
    child = start_writer(tmp_path / "r")
    try:
        assert child.stdout is not None
        seen = []
        for _ in range(6):
            said = int(child.stdout.readline())
            model = read_run(tmp_path / "r").models[0]
            seen.append(len(model.steps))
            assert len(model.steps) >= said  # what write() returned from is there
            assert list(model.steps) == list(range(len(model.steps)))
            assert len(model.parameter_stats["weight_rms"]) == 3 * len(model.parameter_steps)
        assert seen == sorted(seen)
        assert seen[-1] > seen[0]
        assert read_run(tmp_path / "r").status == "running"
    finally:
        child.kill()
        child.wait()


def test_kill_9_loses_less_than_a_second(tmp_path: Path) -> None:
    child = start_writer(tmp_path / "r")
    assert child.stdout is not None
    for _ in range(10):
        child.stdout.readline()
    killed = time.time()
    child.kill()
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the process table
        assert read_run(tmp_path / "r").status == "cut_off"
    child.wait()
    run = read_run(tmp_path / "r")
    assert run.status == "cut_off"
    assert run.ended is None
    model = run.models[0]
    assert killed - model.seconds[-1] < 1.0
    for s, name in enumerate(PARAMETER_STATISTICS):  # nothing half written
        expected = [step + p / 1000 + s / 1e6 for step in range(len(model.steps)) for p in range(3)]
        assert list(model.parameter_stats[name]) == expected


def test_a_cut_off_run_that_may_not_be_written_to_is_read_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(3), step_event(0, 3)])
    shutil.copytree(tmp_path / "r", tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    connect = sqlite3.connect

    def refusing(database: str, *args: object, **options: object) -> sqlite3.Connection:
        if (tmp_path / "copy").as_uri() in database:
            raise sqlite3.OperationalError(
                "unable to open database file"
            )  # as on a read-only disk; we are root
        return connect(database, *args, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", refusing)
    assert list(read_run(tmp_path / "copy").models[0].steps) == [0]


def test_this_very_process_is_not_running(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    assert read_run(tmp_path / "r").status == "cut_off"
    writer.close("interrupted")
    writer.close("finished")
    assert read_run(tmp_path / "r").status == "interrupted"


def test_an_open_reader_blocks_neither_write_nor_close(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(3), step_event(0, 3)])
    reader = sqlite3.connect(tmp_path / "r" / FILE, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM steps").fetchone() == (1,)
    writer.write([step_event(1, 3)])
    assert reader.execute("SELECT count(*) FROM steps").fetchone() == (1,)  # its own view stays as it was
    writer.close("finished")
    assert list(read_run(tmp_path / "r").models[0].steps) == [0, 1]
    reader.close()


def test_writes_from_several_threads_are_all_there(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(2)])
    threads = [
        threading.Thread(
            target=lambda first=i: [writer.write([step_event(first + 4 * k, 2)]) for k in range(10)]
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(read_run(tmp_path / "r").models[0].steps) == list(range(40))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.write([model_event(2)])
    child = os.fork()
    if child == 0:
        writer.write([step_event(0, 2)])
        writer.note("child", "was here")
        writer.close("crashed")
        os._exit(0)
    os.waitpid(child, 0)
    writer.write([step_event(1, 2)])
    run = read_run(tmp_path / "r")
    assert (list(run.models[0].steps), run.extra, run.ended) == ([1], {}, None)


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from store_helpers import model_event, run_info, step_event
from unvanish.errors import RecordError
from unvanish.store import RunWriter, read_run
writer = RunWriter({folder!r}, run_info())
writer.write([model_event(3), step_event(0, 3)])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
for step in range(1, 100_000):
    try:
        writer.write([step_event(step, 3)])
    except RecordError as error:
        print(len(read_run({folder!r}).models[0].steps) == step, error)
        break
"""


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path: Path) -> None:
    code = textwrap.dedent(FULL_DISK).format(here=str(Path(__file__).parent), folder=str(tmp_path / "r"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True ")
    assert "disk" in done.stdout
    assert "; " in done.stdout
    assert len(read_run(tmp_path / "r").models[0].steps) > 10


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    for place in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(RecordError, match="a file is in the way; name a folder"):
            RunWriter(place, run_info())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(RecordError, match=r"can't be made .*; name one that you may write to"):
        RunWriter("/proc/unvanish", run_info())


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root, every folder may be written
    with pytest.raises(RecordError, match="not writable; name one"):
        RunWriter(tmp_path / "r", run_info())


def test_a_folder_that_holds_a_run_already(folder: Path) -> None:
    with pytest.raises(RecordError, match="already holds a run; choose another"):
        RunWriter(folder, run_info())


def test_writing_after_the_end(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "r", run_info())
    writer.close("finished")
    with pytest.raises(RecordError, match="closed"):
        writer.write([model_event(1)])


def test_what_is_no_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"there is no run at .*; give the folder"):
        read_run(tmp_path / "nothing")
    with pytest.raises(RecordError, match=f"holds no run; it holds runs, give one of them: .*{folder.name}"):
        read_run(folder.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="holds no run; give a run's folder"):
        read_run(tmp_path / "empty")
    for content, match in ((b"", "is empty"), (b"PK\x03\x04 a zip, say", "is not a run of unvanish")):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(RecordError, match=match):
            read_run(tmp_path / FILE)


def test_a_foreign_and_a_newer_sqlite_file(folder: Path, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE run (x)")
    other.close()
    with pytest.raises(RecordError, match="SQLite file, but not a run of unvanish"):
        read_run(tmp_path / "other.db")
    newer = sqlite3.connect(folder / FILE)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(RecordError, match=r"newer unvanish \(format 99.*; upgrade"):
        read_run(folder)


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.9])
def test_a_truncated_file(folder: Path, share: float) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: max(20, int(len(content) * share))])
    with pytest.raises(RecordError, match="damaged: a part of it is missing; copy it again"):
        read_run(folder)


def test_a_file_that_was_overwritten_in_the_middle(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (folder / FILE).write_bytes(bytes(content))
    with pytest.raises(RecordError, match="damaged"):
        read_run(folder)


def test_a_record_that_has_only_just_begun(tmp_path: Path) -> None:
    begun = sqlite3.connect(tmp_path / FILE)
    begun.execute("PRAGMA journal_mode = WAL")
    begun.close()
    with pytest.raises(RecordError, match="holds nothing yet; wait"):
        read_run(tmp_path)


def test_list_runs_leaves_out_what_is_broken(folder: Path) -> None:
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / FILE).write_text("no")
    assert [(p.name, i.id, s) for p, i, s in list_runs(folder.parent)] == [("a", "r1", "finished")]
    with pytest.raises(RecordError, match="there is no folder"):
        list_runs(folder.parent / "nowhere")


def test_results_lie_beside_the_record(folder: Path) -> None:
    assert load_result(folder, "diagnosis.json") is None
    save_result(folder, "diagnosis.json", json.dumps({"a": 1}))
    path = save_result(folder, "diagnosis.json", json.dumps({"verdict": "krank ☠"}, ensure_ascii=False))
    assert json.loads(load_result(folder, "diagnosis.json") or "") == {"verdict": "krank ☠"}
    assert load_result(folder / FILE, "diagnosis.json") == path.read_text(encoding="utf-8")
    assert sorted(p.name for p in folder.iterdir()) == ["diagnosis.json", FILE]
    assert read_run(path).info.id == "r1"
    for name in ("../x.json", "", "..", "a/b"):
        with pytest.raises(ValueError, match="plain file name"):
            save_result(folder, name, "{}")


def test_a_result_that_fails_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_result(folder, "diagnosis.json", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        save_result(folder, "diagnosis.json", "new")
    assert load_result(folder, "diagnosis.json") == "old"
    assert sorted(p.name for p in folder.iterdir()) == ["diagnosis.json", FILE]


def test_ordinary_sql_answers_by_name(folder: Path) -> None:
    shell = sqlite3.connect(folder / FILE)
    rows = shell.execute(
        "SELECT parameter, gradient_rms FROM gradients WHERE model = 'net' AND step = 4 ORDER BY parameter"
    ).fetchall()
    assert rows == [("p0", 4.0), ("p1", 4.001), ("p2", 4.002)]
    kinds = shell.execute("SELECT DISTINCT typeof(gradient_rms) FROM parameter_stats").fetchall()
    shell.close()
    assert kinds == [("real",)]
