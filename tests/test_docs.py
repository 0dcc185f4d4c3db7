"""What the docs show is what there is: examples are run, options and keys compared."""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

import unvanish
from unvanish.cli import unvanish as command
from unvanish.schema.finding import Diagnosis
from unvanish.store import read_run
from unvanish.store.layout import SCHEMA_VERSION, TABLES, VIEWS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def trained(folder: Path) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(30):
            x = torch.randn(16, 4)
            optimizer.zero_grad()
            F.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()

    return {"model": net, "optimizer": optimizer, "train": train}


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), trained(tmp_path))  # noqa: S102 - our own example
    assert re.search(r"^Verdict  \w+", capsys.readouterr().out, re.MULTILINE)


def test_what_explain_shows_is_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    factory, called = blocks("docs/explain.md", "python")
    (tmp_path / "nets.py").write_text(factory, encoding="utf-8")
    shown = [b for b in blocks("docs/explain.md", "console") if b.startswith("$ ")]
    assert len(shown) == 2
    for block in shown:
        line, _, expected = block.partition("\n")
        printed = CliRunner().invoke(command, line.split()[2:]).stdout
        # the numbers' last digits are the machine's own
        assert _words(expected) in _words(printed), line
    scope = dict(zip(("model", "batch", "loss_fn"), _built(factory), strict=True))
    scope["inputs"], scope["targets"] = scope.pop("batch")
    exec(compile(called, "explain.md", "exec"), scope)  # noqa: S102 - our own example
    assert "autograd's gradient, exactly" in capsys.readouterr().out


def _words(text: str) -> str:
    return re.sub(r"[-\N{MINUS SIGN}+]?\d[\d.,]*(e-?\d+)?", "#", " ".join(text.split()))


def _built(code: str) -> tuple[Any, ...]:
    scope: dict[str, Any] = {}
    exec(compile(code, "nets.py", "exec"), scope)  # noqa: S102 - our own example
    made: tuple[Any, ...] = scope["build"]()
    return made


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = trained(tmp_path_factory.mktemp("trained"))
    with unvanish.watch(made["model"], made["optimizer"], out=tmp_path_factory.mktemp("runs")) as w:
        made["train"](made["model"], made["optimizer"])
    return Path(w.path)


def test_the_sql_of_the_record_runs(recorded: Path) -> None:
    connection = sqlite3.connect(recorded / "run.sqlite")
    statements = re.findall(
        r'"(SELECT [^"]+)"', (ROOT / "docs" / "run-record.md").read_text(encoding="utf-8")
    )
    assert len(statements) >= 7
    for statement in statements:
        assert connection.execute(statement).fetchall(), statement


def test_the_python_of_the_record_gives_what_reading_the_run_gives(recorded: Path) -> None:
    model = read_run(recorded).models[0]
    scopes: list[dict[str, Any]] = []
    for code in blocks("docs/run-record.md", "python"):
        if "import pandas" in code and importlib.util.find_spec("pandas") is None:
            continue  # its SQL is run above
        here = code.replace("unvanish_runs/<run>", str(recorded))
        assert here != code
        scopes.append({})
        exec(compile(here, "run-record.md", "exec"), scopes[-1])  # noqa: S102 - our own example
    losses, statistics, traces = scopes[-3:]
    assert losses["steps"].tolist() == list(model.steps)
    assert losses["losses"].tolist() == list(model.losses)
    width = len(model.info.parameters)
    assert statistics["names"] == [p.name for p in model.info.parameters]
    rms = list(model.parameter_stats["gradient_rms"])[::width]
    assert [(first, last) for first, last, _, _ in statistics["rows"]] == [
        (s, s) for s in model.parameter_steps
    ]
    assert (
        [mean for _, _, mean, _ in statistics["rows"]]
        == [peak for _, _, _, peak in statistics["rows"]]
        == rms
    )
    assert {step: norms.tolist() for step, norms in traces["norms"].items()} == {
        trace.step: [s.norm for s in trace.stats] for trace in model.traces
    }


def test_the_python_of_the_check_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks("docs/check.md", "python"):
        scope: dict[str, Any] = {}
        exec(compile(code, "check.md", "exec"), scope)  # noqa: S102 - our own example
        for name, value in scope.items():
            if name.startswith("test_"):
                value()
    said = capsys.readouterr().out
    assert "Verdict  sick: vanishing gradients, saturating activation" in said
    assert "ReLU, init unchanged" in said


def test_the_record_s_page_names_every_table() -> None:
    text = (ROOT / "docs" / "run-record.md").read_text(encoding="utf-8")
    for table in (*TABLES, *VIEWS):
        assert f"`{table}`" in text, table
    assert f"the format ({SCHEMA_VERSION})" in text


def test_every_option_is_in_the_reference_and_no_other() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert isinstance(command, click.Group)
    for name, one in command.commands.items():
        section = re.search(rf"## `unvanish {name}[ `](.*?)(?=\n## |\Z)", text, re.DOTALL)
        assert section is not None, name
        shown = [p for p in one.params if isinstance(p, click.Option) and not p.hidden]
        there = {o for p in shown for o in p.opts} - {"--help"}
        said = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section.group(0)))
        assert said <= there | {"--out", "-"}, f"{name}: {said - there}"
        missing = {o for o in there if o.startswith("--")} - said
        assert not missing - {"--output"}, f"{name}: {missing}"


def test_the_json_of_the_reference_has_the_keys_that_are_written() -> None:
    (example,) = (json.loads(b) for b in blocks("docs/cli.md", "json"))
    written = Diagnosis(version="0.1.0", models=(), run="x").to_dict()
    assert set(example) == set(written)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_shows_what_the_demo_printed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- demo output: begin")[1].split("<!-- demo output: end")[0]
    for line in ("Verdict  Sick", "of the", "LSUV init", "no better", "cured", "Recipe", "Page"):
        assert line in shown


def test_the_pages_of_the_rules_are_what_the_rules_say(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tools/rules.py", "--check"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
