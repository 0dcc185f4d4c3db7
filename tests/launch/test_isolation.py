"""A script that is tried out leaves the user's files as they were, and sees its own as if it had written them there."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from unvanish.errors import ScriptError, UsageError
from unvanish.launch.isolation import apart, redirected, scratch_folder
from unvanish.launch.isolation.scratch import remove
from unvanish.launch.isolation.zones import folders_of, zones_for

BATTERY = Path(__file__).parent / "isolated" / "battery.py"
NAMES = [
    line.removeprefix("def ").partition("(")[0]
    for before, line in zip(
        BATTERY.read_text().splitlines(), BATTERY.read_text().splitlines()[1:], strict=False
    )
    if before == "@case"
]
TRY = "import sys; from pathlib import Path; from unvanish.launch.isolation import isolate; isolate(Path(sys.argv[1]), ['.'])"


def fill(folder: Path) -> None:
    """What a user has in the folder."""
    files = {
        "best.pt": "user's best", "log.csv": "user's line\n", "notes.txt": "user's notes", "train.log": "user's log\n",
        "notes2.txt": "user's second", "notes3.txt": "user's third", "state.json": '{"user": 1}', "short.txt": "short",
        "fork_me.txt": "user's", "linked.txt": "user's link", "runs/1.txt": "1", "runs/2.txt": "2", "cache/x.bin": "x",
        "cache/deep/y.bin": "y", "data/deep/d.txt": "d", **{f"ckpt_{k}.pt": f"user's {k}" for k in range(1, 5)},
    }  # fmt: skip
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    np.ones(4, "float32").tofile(folder / "map.dat")
    (folder / "to_data").symlink_to("data")
    os.mkfifo(folder / "pipe")
    with contextlib.closing(sqlite3.connect(folder / "results.db")) as db:
        db.execute("create table t (x)")
        db.execute("insert into t values (1)")
        db.commit()


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that can be seen of a folder's content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        seen = path.lstat()
        content = (
            str(path.readlink()).encode()
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b""
        )
        time = 0 if path.is_fifo() else seen.st_mtime_ns  # what goes through a pipe is for its reader
        found[str(path.relative_to(folder))] = (content, time, seen.st_mode, seen.st_ino)
    return found


def way_is_open(way: str, folder: Path) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(folder)], env={**os.environ, "UNVANISH_ISOLATION": way},
        check=False, capture_output=True, cwd=folder,
    )  # fmt: skip
    return done.returncode == 0


@pytest.fixture(scope="module", params=["mounts", "python"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the battery says, by case; and what has become of the user's files."""
    way = request.param
    base = tmp_path_factory.mktemp(way)
    project, home = base / "project", base / "home"
    for folder in (project, home, base / "scratch", base / "tried"):
        folder.mkdir()
    fill(project)
    if not way_is_open(way, base / "tried"):
        pytest.skip("mounts are refused here")
    before = state(project), state(home)
    done = subprocess.run(
        [sys.executable, str(BATTERY), str(base / "scratch"), way],
        cwd=project, env={**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = state(project), state(home)
    changed = {
        k for old, new in zip(before, after, strict=True) for k in {*old, *new} if old.get(k) != new.get(k)
    }
    remove(base / "scratch")
    assert not (base / "scratch").exists()
    said: dict[str, str] = {**json.loads(done.stdout.splitlines()[-1]), "changed": ", ".join(sorted(changed))}
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_script_sees_what_it_has_done(told: dict[str, str], name: str) -> None:
    assert not told[name], told[name]


def test_the_users_files_are_bit_identical_with_their_times(told: dict[str, str]) -> None:
    assert not told["changed"]


def test_the_deepest_folder_decides(tmp_path: Path) -> None:
    free, like_it = "/tmp/x", "/tmpfiles"  # noqa: S108
    scratch = tmp_path / "scratch"
    zones = zones_for([tmp_path / "project"], scratch)
    assert zones.protects("/data/x") and zones.protects(str(tmp_path / "project" / "x"))
    for path in (free, "/dev/null", str(scratch)):
        assert not zones.protects(path)
    assert zones.protects(like_it) and zones.protects("/devil")


def test_a_script_run_in_the_temporary_folder_itself_protects_its_own_only(tmp_path: Path) -> None:
    zones = zones_for(["/tmp", "/tmp/project"], tmp_path / "scratch")  # noqa: S108
    assert zones.protects("/tmp/project/x") and not zones.protects("/tmp/else")  # noqa: S108


def test_folders_of_a_script_reach_up_to_its_repository(tmp_path: Path) -> None:
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "deep" / "deeper").mkdir(parents=True)
    found = folders_of("deeper/train.py", str(tmp_path / "repo" / "deep"), is_module=False)
    repo = tmp_path / "repo"
    assert found == (str(repo / "deep"), str(repo / "deep" / "deeper"), str(repo))


def test_two_scripts_do_not_see_each_other(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with redirected(tmp_path / "a", [tmp_path / "p"]):
        (tmp_path / "p" / "x").write_text("a")
        assert (tmp_path / "p" / "x").exists()
    with redirected(tmp_path / "b", [tmp_path / "p"]):
        assert not (tmp_path / "p" / "x").exists()
    assert list((tmp_path / "p").iterdir()) == []


def test_redirection_is_taken_back_whole(tmp_path: Path) -> None:
    import builtins
    import io

    before = (dict(vars(os)), builtins.open, io.open, dict(vars(sys.modules["shutil"])))
    with redirected(tmp_path, [tmp_path]):
        assert os.stat is not before[0]["stat"]
    assert before == (dict(vars(os)), builtins.open, io.open, dict(vars(sys.modules["shutil"])))


def test_a_thread_of_the_script_is_led_too(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()

    def write() -> None:
        (tmp_path / "p" / "x").write_text("x")

    with redirected(tmp_path / "s", [tmp_path / "p"]):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert (tmp_path / "p" / "x").read_text() == "x"
    assert not (tmp_path / "p" / "x").exists()


def test_a_scratch_folder_is_gone_at_the_end_and_after_a_kill() -> None:
    with scratch_folder() as folder:
        (folder / "locked").mkdir(mode=0)
    assert not folder.exists()
    child = os.fork()
    if not child:
        import signal

        with scratch_folder() as left:
            Path(left.parent, f"left-by-{os.getpid()}").write_text(str(left))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    note = Path(folder.parent, f"left-by-{child}")
    left = Path(note.read_text())
    note.unlink()
    assert left.exists()
    with scratch_folder() as mine:
        assert not left.exists() and mine.exists()
        with scratch_folder():
            assert mine.exists()  # in use: it stays


MOUNTS = """
import os, tempfile
from pathlib import Path
from unvanish.launch.isolation import isolate
from unvanish.launch.isolation.mounted import mounted
from unvanish.launch.isolation.scratch import scratch_folder
os.environ["UNVANISH_ISOLATION"] = "mounts"
base = Path.cwd()
with scratch_folder() as scratch:
    tempfile.tempdir = str(base / "project" / "temporary")  # free, inside of what is protected
    isolate(scratch, [base / "project"])
    (base / "project" / "x").write_text("script's")
    (base / "project" / "temporary" / "kept").write_text("kept")
    inside = [p for p, _ in mounted() if "unvanish-scratch" in p]
    assert not inside, inside
    assert not (base / "project" / "temporary" / "removed").exists()
    (base / "project" / "temporary" / "removed").touch()
    (base / "project" / "temporary" / "removed").unlink()
assert not scratch.exists()
"""


def test_nothing_of_the_users_is_mounted_in_what_is_removed(tmp_path: Path) -> None:
    (tmp_path / "project" / "temporary" / "users").mkdir(parents=True)
    (tmp_path / "project" / "temporary" / "users" / "x").write_text("user's")
    (tmp_path / "project" / "x").write_text("user's")
    if not way_is_open("mounts", tmp_path):
        pytest.skip("mounts are refused here")
    done = subprocess.run(
        [sys.executable, "-c", MOUNTS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "project" / "x").read_text() == "user's"
    assert (tmp_path / "project" / "temporary" / "users" / "x").read_text() == "user's"
    assert (tmp_path / "project" / "temporary" / "kept").read_text() == "kept"
    assert sorted(p.name for p in (tmp_path / "project" / "temporary").iterdir()) == ["kept", "users"]


def test_a_folder_in_which_something_is_mounted_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s" / "aside").mkdir(parents=True)
    there = [(str(tmp_path / "s" / "aside"), "ext4")]
    monkeypatch.setattr("unvanish.launch.isolation.scratch.mounted", lambda: there)
    remove(tmp_path / "s")
    assert (tmp_path / "s" / "aside").exists()


def test_apart_gives_what_it_gives_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("user's")

    def work() -> str:
        (tmp_path / "x").write_text("script's")
        return (tmp_path / "x").read_text()

    assert apart(work, [tmp_path]) == "script's"
    assert (tmp_path / "x").read_text() == "user's"

    def refuse() -> None:
        raise UsageError("a mistake", "a mend")

    with pytest.raises(UsageError, match="a mistake; a mend"):
        apart(refuse, [tmp_path])


def test_a_script_that_ends_its_process_is_said(tmp_path: Path) -> None:
    script = (
        "import os, sys; from unvanish.launch.isolation import apart; from unvanish.errors import ScriptError\n"
        "try: apart(lambda: os._exit(7), ['.'])\n"
        "except ScriptError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "code 7" in done.stdout
    assert issubclass(ScriptError, Exception)


def test_an_unknown_way_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path)], env={**os.environ, "UNVANISH_ISOLATION": "magic"},
        check=False, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode and "UNVANISH_ISOLATION=magic" in done.stderr
