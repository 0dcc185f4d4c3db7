"""The command line before anything runs: parsing, help, usage errors."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import click
import pytest

from unvanish import cli, launch
from unvanish.errors import UnvanishError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[launch.Target, Any]]:
    """What `run` would have started, instead of starting it."""
    seen: list[tuple[launch.Target, Any]] = []

    def note(target: launch.Target, options: Any) -> int:
        seen.append((target, options))
        return 17

    monkeypatch.setattr(cli, "watch_script", note)
    return seen


PARSED = [
    (["s.py"], "s.py", False, (), {}),
    (["s.py", "--json", "x", "--help", "-m", "y"], "s.py", False, ("--json", "x", "--help", "-m", "y"), {}),
    (["--json", "d.json", "s.py", "--", "-x"], "s.py", False, ("--", "-x"), {"json_path": "d.json"}),
    (["--json=-", "--quiet", "s.py"], "s.py", False, (), {"json_path": "-", "quiet": True}),
    (["--json", "-", "s.py"], "s.py", False, (), {"json_path": "-"}),
    (["--", "-odd.py", "--quiet"], "-odd.py", False, ("--quiet",), {}),
    (["--out", "-m", "s.py"], "s.py", False, (), {"out": "-m"}),
    (["-m", "pkg.mod", "--steps", "3", "--"], "pkg.mod", True, ("--steps", "3", "--"), {}),
    (["--steps", "3", "-m", "pkg", "s.py", "-m"], "pkg", True, ("s.py", "-m"), {"steps": 3}),
    (["-mpkg", "--help"], "pkg", True, ("--help",), {}),
    (["--seed", "0", "--every", "5", "--fail-on", "warning", "-"], "-", False, (), {"seed": 0, "every": 5}),
]


@pytest.mark.parametrize(("words", "name", "is_module", "arguments", "options"), PARSED)
def test_our_options_end_where_the_script_begins(
    words: list[str],
    name: str,
    is_module: bool,
    arguments: tuple[str, ...],
    options: dict[str, Any],
    started: list[tuple[launch.Target, Any]],
) -> None:
    assert cli.main(["run", *words]) == 17
    ((target, given),) = started
    assert target == launch.Target(name=name, arguments=arguments, is_module=is_module)
    assert {key: getattr(given, key) for key in options} == options


WRONG = [
    ["run"],
    ["run", "--quiet"],
    ["run", "-m"],
    ["run", "--nope", "s.py"],
    ["run", "--steps", "0", "s.py"],
    ["run", "--seed", "-1", "s.py"],
    ["run", "--seed", "4294967296", "s.py"],
    ["run", "--every", "x", "s.py"],
    ["run", "--fail-on", "note", "s.py"],
    ["run", "--json"],
    ["report"],
    ["explain"],
    ["explain", "--toy", "run"],
    ["treat"],
    ["compare"],
    ["serve", "--port", "70000"],
    ["export", "run"],
    ["export", "run", "--to", "xlsx"],
    ["report", "run", "--text", "-o", "page.html"],
    ["nonsense"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_usage_errors_are_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: " in err


def test_an_unknown_command_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["cure", "s.py"])
    there = "demo, run, treat, check, report, serve, compare, export, explain"
    assert f"there is no command 'cure'; there are: {there}" in capsys.readouterr().err


def test_errors_are_one_line_and_1(
    started: list[tuple[launch.Target, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> int:
        raise UnvanishError("the mistake", "the mend")

    monkeypatch.setattr(cli, "watch_script", fail)
    assert cli.main(["run", "s.py"]) == 1
    assert capsys.readouterr().err == "unvanish: the mistake; the mend\n"


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "watch_script", interrupt)
    assert cli.main(["run", "s.py"]) == 130
    assert capsys.readouterr().err.strip() == "unvanish: interrupted"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"], ["explain", "-h"], ["--version"]])
def test_help_is_0_and_on_stdout(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert "unvanish" in out
    assert err == ""


def test_every_option_has_a_word_of_help() -> None:
    for command in cli.unvanish.commands.values():
        assert command.help
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, (command.name, option.name)


def test_help_meets_no_torch_and_is_fast() -> None:
    """300 ms of a core are the limit; the least of five, so that a busy machine does not decide."""
    source = (
        "import sys; from unvanish.cli import main; code = main(['--help']);"
        " heavy = {'torch', 'numpy', 'rich', 'unvanish.session'} & set(sys.modules); sys.exit(repr(heavy) if heavy else code)"
    )
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (done.returncode, done.stderr) == (0, "")
    assert min(seconds) < 0.3


def test_the_face_imports_no_torch_and_knows_its_names() -> None:
    source = """
import sys, unvanish
assert not {"torch", "numpy", "click"} & set(sys.modules)
assert unvanish.__version__ and "watch" in dir(unvanish)
try:
    unvanish.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    sys.exit("no AttributeError")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
