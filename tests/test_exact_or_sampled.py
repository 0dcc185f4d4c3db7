"""Each number says whether it is that of all elements or of a sample: from the probe to the page."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

import unvanish
from unvanish.cli import unvanish as command
from unvanish.present.view import build_view
from unvanish.schema.run import ModelRun
from unvanish.session import chains, diagnose, load

WIDTH = 96  # 9,216 weights, signals of 128 x 96 = 12,288


def train(folder: Path, *, exact: bool) -> tuple[Path, nn.Module, list[dict[str, Any]]]:
    """Three steps; gives what a float64 twin says of each."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    twin = []
    with unvanish.watch(net, optimizer, out=folder, exact=exact) as w:
        for _ in range(3):
            x = torch.randn(128, WIDTH)
            optimizer.zero_grad()
            hidden = net[:2](x)
            hidden.retain_grad()
            F.cross_entropy(net[2](hidden), (x[:, 0] > 0).long()).backward()
            weight = net[0].weight
            before = weight.detach().double().clone()
            optimizer.step()
            second = optimizer.state[weight]["exp_avg_sq"].double()
            root = (second / (1 - 0.999 ** float(optimizer.state[weight]["step"]))).sqrt()
            assert weight.grad is not None and hidden.grad is not None
            twin.append(
                {
                    "gradient_rms": float(weight.grad.double().square().mean().sqrt()),
                    "weight_rms": float(before.square().mean().sqrt()),
                    "adam_suppression": float((root / (root + 1e-8)).mean()),
                    "norm": float(torch.linalg.vector_norm(before)),
                    "median": float(before.quantile(0.5)),
                    "signal": float(torch.linalg.vector_norm(hidden.grad.double())),
                }
            )
    return Path(w.path), net, twin


def looked_at(path: Path) -> tuple[ModelRun, dict[str, Any]]:
    run = load(path)
    view = build_view(run, diagnose(run), chains(run))
    return run.models[0], view


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(tmp_path_factory.mktemp("sampled"), exact=False)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(tmp_path_factory.mktemp("exact"), exact=True)


def signal(model: ModelRun, trace: int) -> Any:
    graph = model.graphs[model.traces[trace].graph]
    (tanh,) = [o.index for o in graph.operations if o.name == "Tanh"]
    return model.traces[trace].stats[tanh]


def test_samples_say_so_everywhere(sampled: Any) -> None:
    path, _, twin = sampled
    model, view = looked_at(path)
    weight, bias = model.info.parameters[:2]
    assert 200 <= weight.sampled <= 256 and not weight.exact
    assert bias.sampled == bias.numel == WIDTH and bias.exact
    stats = signal(model, 0)
    assert stats.sampled is not None and 2000 <= stats.sampled <= 4096 and stats.count == 128 * WIDTH
    assert stats.norm == pytest.approx(twin[0]["signal"], rel=0.1)
    (fact,) = [f["value"] for f in view["models"][0]["facts"] if f["name"] == "looked at"]
    assert re.fullmatch(
        r"samples: about 2\d\d elements of 2 of 4 tensors; [\d,]+ or more of each larger signal", fact
    )
    told = explained(path)
    assert told["json"]["chains"][0]["sampled"] > 2000
    assert "estimated from samples of" in told["text"] and "--exact" in told["text"]


def test_exact_is_exact_everywhere_and_says_so(exact: Any) -> None:
    path, _, twin = exact
    model, view = looked_at(path)
    assert all(p.exact and p.sampled == p.numel for p in model.info.parameters)
    for trace in model.traces:
        assert all(s.sampled is None for s in trace.stats)
    assert [t.step for t in model.traces][:3] == [0, 1, 2]
    for step, expected in enumerate(twin):
        for name in ("gradient_rms", "weight_rms", "adam_suppression"):
            found = model.parameter_stats[name][step * 4]
            if name == "adam_suppression" and math.isnan(found):
                continue  # not looked at at this step
            assert found == pytest.approx(expected[name], rel=1e-6), name
        assert signal(model, step).norm == pytest.approx(expected["signal"], rel=1e-6)
        (shot,) = [s for s in model.snapshots if (s.step, s.parameter) == (step, 0)]
        assert shot.norm == pytest.approx(expected["norm"], rel=1e-6)
        assert shot.quantiles[3] == pytest.approx(expected["median"], rel=1e-5)
    assert not math.isnan(model.parameter_stats["adam_suppression"][0])
    facts = {f["name"]: f["value"] for f in view["models"][0]["facts"]}
    assert facts["looked at"] == "every element"
    told = explained(path)
    assert told["json"]["chains"][0]["sampled"] is None
    assert "Every norm is that of all elements." in told["text"]


def test_the_rows_for_ordinary_tools_say_so_too(sampled: Any, exact: Any) -> None:
    for path, some in ((sampled[0], True), (exact[0], False)):
        record = sqlite3.connect(path / "run.sqlite")
        (elements,) = record.execute("SELECT sampled FROM parameters WHERE name = '0.weight'").fetchone()
        assert (elements < WIDTH * WIDTH) == some
        (count,) = record.execute(
            "SELECT count(*) FROM trace_operations WHERE sampled IS NOT NULL"
        ).fetchone()
        assert (count > 0) == some
        record.close()


def explained(path: Path) -> dict[str, Any]:
    runner = CliRunner()
    text = runner.invoke(command, ["explain", str(path), "--parameter", "0.weight"])
    data = runner.invoke(command, ["explain", str(path), "--parameter", "0.weight", "--json", "-"])
    assert text.exit_code == data.exit_code == 0, (text.output, data.output)
    return {"text": text.output, "json": json.loads(data.stdout)}
