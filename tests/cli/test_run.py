"""``unvanish run`` around the script: what is checked before, told after, and which exit code comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

FAKE = str(Path(__file__).with_name("fake_unvanish.py"))
TRAINS = "import torch\ntorch.steps(3)\nprint('trained')\n"
SICK = TRAINS + "torch.finding({severity!r})\n"


def run(folder: Path, script: str | None, *options: str, arguments: tuple[str, ...] = ()) -> Any:
    (folder / "torch.py").write_text("def manual_seed(seed): pass\n", encoding="utf-8")
    if script is not None:
        (folder / "s.py").write_text(textwrap.dedent(script), encoding="utf-8")
    return subprocess.run(
        [sys.executable, FAKE, "run", *options, "s.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_diagnosis_goes_to_stderr_and_stdout_stays_the_scripts_own(tmp_path: Path) -> None:
    done = run(tmp_path, TRAINS)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    verdict, *rest = done.stderr.splitlines()
    assert verdict == "VERDICT healthy net finished None"
    assert rest[-1].endswith("unvanish report unvanish_runs/the-run")


def test_quiet_says_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, TRAINS, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "trained\n", "")


def test_json_on_stdout_comes_after_what_the_script_printed(tmp_path: Path) -> None:
    done = run(tmp_path, SICK.format(severity="note"), "--json", "-")
    first, rest = done.stdout.split("\n", 1)
    assert first == "trained"
    assert json.loads(rest)["verdict"] == "sick"


def test_json_on_stdout_survives_a_script_that_takes_stdout_away(tmp_path: Path) -> None:
    done = run(tmp_path, TRAINS + "import io, sys\nsys.stdout = sys.stderr = io.StringIO()\n", "--json", "-")
    assert json.loads(done.stdout.split("\n", 1)[1])["verdict"] == "healthy"
    assert done.stderr.startswith("VERDICT healthy")


def test_json_in_a_file_is_where_it_was_said_though_the_script_goes_elsewhere(tmp_path: Path) -> None:
    script = SICK.format(severity="warning") + "import os\nos.mkdir('else'); os.chdir('else')\n"
    done = run(tmp_path, script, "--json", "d.json", "--out", "kept")
    assert done.returncode == 0
    data = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    assert data["models"][0]["findings"][0]["summary"] == "\ud800 odd name"
    assert data["run"] == str(tmp_path / "kept" / "the-run")
    assert "unvanish report kept/the-run" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if "json" in p.name) == ["d.json"]


def test_json_to_a_device_does_not_replace_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", "pipe"], cwd=tmp_path, stdout=subprocess.PIPE) as reader:
        assert run(tmp_path, TRAINS, "--json", "pipe").returncode == 0
        assert reader.stdout is not None
        assert json.loads(reader.stdout.read())["schema"] == 1
    assert (tmp_path / "pipe").is_fifo()


def test_the_session_is_told_what_was_asked(tmp_path: Path) -> None:
    script = TRAINS + "print(sorted(torch.told.items()))"
    done = run(tmp_path, script, "--steps", "5", "--every", "2", "--seed", "9", arguments=("--steps", "7"))
    told = dict(eval(done.stdout.splitlines()[1]))  # noqa: S307 - printed by the script above
    assert told.pop("command")[1:] == (
        "run",
        "--steps",
        "5",
        "--every",
        "2",
        "--seed",
        "9",
        "s.py",
        "--steps",
        "7",
    )
    assert told == {"every": 2, "exact": False, "script": "s.py", "seed": 9, "stop_after": 5}


def test_the_seed_counts_for_pythons_random(tmp_path: Path) -> None:
    script = TRAINS + "import random; print(random.random())"
    once, again, other = (
        run(tmp_path, script, "--seed", s, "--out", f"{i}").stdout for i, s in enumerate("112")
    )
    assert once == again != other


@pytest.mark.parametrize(
    ("severity", "limit", "ending", "code"),
    [
        ("critical", "critical", "", 3),
        ("critical", "warning", "", 3),
        ("warning", "warning", "", 3),
        ("warning", "critical", "", 0),
        ("note", "warning", "", 0),
        ("critical", "warning", "raise SystemExit(5)", 5),
        ("critical", "warning", "1 / 0", 1),
        ("critical", "warning", "torch.stop()", 3),
    ],
)
def test_fail_on(severity: str, limit: str, ending: str, code: int, tmp_path: Path) -> None:
    assert run(tmp_path, SICK.format(severity=severity) + ending, "--fail-on", limit).returncode == code


def test_a_crash_shows_the_traceback_first_and_then_the_diagnosis(tmp_path: Path) -> None:
    done = run(tmp_path, TRAINS + "1 / 0")
    assert done.returncode == 1
    traceback, _, rest = done.stderr.partition("ZeroDivisionError: division by zero\n")
    assert traceback.count("File ") == 1
    assert rest.startswith("VERDICT healthy net crashed ZeroDivisionError: division by zero\n")


def test_a_stop_is_a_clean_end_that_runs_finally_blocks(tmp_path: Path) -> None:
    script = (
        TRAINS
        + "try:\n    torch.stop()\nexcept Exception:\n    print('no')\nfinally:\n    print('finally')\n"
    )
    done = run(tmp_path, script, "--steps", "3")
    assert (done.returncode, done.stdout) == (0, "trained\nfinally\n")
    assert done.stderr.startswith("VERDICT healthy net stopped None\n")


@pytest.mark.parametrize("script", ["import torch\n", "print('no torch')\n"])
def test_a_script_that_never_trains_is_told_so_and_json_is_inconclusive(script: str, tmp_path: Path) -> None:
    done = run(tmp_path, script, "--json", "d.json", "--quiet")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nothing to diagnose; " in done.stderr
    assert json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))["verdict"] == "inconclusive"


def test_a_script_that_fails_before_it_trains_keeps_its_own_code(tmp_path: Path) -> None:
    done = run(tmp_path, "import sys; sys.exit(6)")
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert not (tmp_path / "unvanish_runs" / "the-run").exists()


@pytest.mark.parametrize(
    ("mark", "said"), [("refuse", "the folder said no; take another"), ("fault", "ZeroDivisionError")]
)
def test_watching_that_can_not_begin_ends_the_script_before_it_trains(
    mark: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / mark).touch()
    script = "try:\n    import torch\nexcept Exception:\n    pass\nprint('trained unwatched')\n"
    done = run(tmp_path, script, "--out", "kept")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("unvanish: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


REFUSED = {
    "json in no folder": ("--json", "nowhere/d.json"),
    "json is a folder": ("--json", "."),
    "out is a file": ("--out", "torch.py"),
    "out below a file": ("--out", "torch.py/runs"),
    "out in a system's folder": ("--out", "/proc/runs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_written_is_refused_before_the_script_starts(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, "print('started')", *REFUSED[name])
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("unvanish: ")


def test_a_missing_script_is_named_with_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "ss.py").touch()
    done = run(tmp_path, None)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "unvanish: there is no script s.py; did you mean ss.py?\n"


def test_forked_children_tell_nothing_and_import_torch_unwatched(tmp_path: Path) -> None:
    script = """
        import os, sys
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            import torch
            torch.steps(1)
        else:
            import torch
            print("child", hasattr(torch, "steps"), flush=True)
            sys.exit(0)
        """
    done = run(tmp_path, script)
    assert (done.returncode, done.stdout) == (0, "child False\n")
    assert done.stderr.count("VERDICT") == 1


def test_modules_of_ours_are_not_taken_from_the_scripts_folder(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise OSError('the wrong rich')", encoding="utf-8")
    assert run(tmp_path, TRAINS).returncode == 0
