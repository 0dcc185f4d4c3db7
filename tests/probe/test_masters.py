"""Float32 masters that a script keeps by hand: the signal is that of the working copy, the steps are the masters'."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from watching import Seen, watched


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def trained(*, as_module: bool, dtype: torch.dtype = torch.bfloat16) -> Seen:
    torch.manual_seed(0)
    if as_module:
        held = net()
        working = copy.deepcopy(held).to(dtype)
        masters = list(held.parameters())
    else:
        working = net().to(dtype)
        masters = [p.detach().float().clone().requires_grad_(True) for p in working.parameters()]

    def loop() -> None:
        optimizer = torch.optim.SGD(masters, 0.1)
        for _ in range(12):
            x = torch.randn(16, 6)
            working.zero_grad()
            (working(x.to(dtype)).float() - x[:, :1]).square().mean().backward()
            with torch.no_grad():
                for m, w in zip(masters, working.parameters(), strict=True):
                    m.grad = None if w.grad is None else w.grad.float()
                optimizer.step()
                for m, w in zip(masters, working.parameters(), strict=True):
                    w.copy_(m)

    return watched(loop)


@pytest.mark.parametrize("as_module", [True, False], ids=["module", "tensors"])
def test_the_working_copy_is_traced_and_the_masters_are_stepped(as_module: bool) -> None:
    (model,) = trained(as_module=as_module).models
    assert [p.name for p in model.info.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert {p.dtype for p in model.info.parameters} == {"bfloat16"}
    assert all(p.optimizer == 0 for p in model.info.parameters)
    assert model.info.class_name == "Sequential"
    assert len(model.losses) == 12 and model.traces
    weighted = [o for o in model.graphs[model.traces[0].graph].operations if o.kind == "weight"]
    assert weighted[0].module == "0"
    moved = list(model.parameter_stats["update_rms"])
    assert sum(v > 0 for v in moved) > len(moved) / 2


def test_an_average_that_is_not_stepped_is_no_working_copy() -> None:
    torch.manual_seed(0)
    model, average = net(), net()

    def loop() -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(5):
            x = torch.randn(16, 6)
            with torch.no_grad():
                average(x)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    (seen,) = watched(loop).models
    assert {p.dtype for p in seen.info.parameters} == {"float32"} and seen.traces
