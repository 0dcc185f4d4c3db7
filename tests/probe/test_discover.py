"""Models are found by themselves, named as the script names them, and let go of when the script does."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import nn
from watching import watched

from unvanish.probe.discover import script_name


def _steps(net: nn.Module, count: int = 3, *, call: Any = None) -> None:
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(count):
        optimizer.zero_grad()
        (call or net)(torch.randn(5, 4)).pow(2).mean().backward()
        optimizer.step()


def test_a_search_over_many_nets_keeps_none_of_them() -> None:
    alive: list[weakref.ref[nn.Module]] = []

    def search() -> None:
        for _ in range(6):
            candidate = nn.Linear(4, 2)
            alive.append(weakref.ref(candidate))
            _steps(candidate)
            del candidate
            gc.collect()
        assert sum(ref() is not None for ref in alive) <= 1

    seen = watched(search)
    assert [m.info.name for m in seen.models] == ["candidate", *[f"candidate#{i}" for i in range(2, 7)]]
    assert [m.info.index for m in seen.models] == list(range(6))
    assert all(len(m.steps) == 3 for m in seen.models)


class Trainer(nn.Module):
    """Holds a net, as a lightning module or a loss does, and is never called itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_the_net_that_is_called_counts_and_not_what_holds_it() -> None:
    backbone = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    holder = Trainer(backbone)
    run = watched(lambda: _steps(holder, call=backbone)).model
    assert run.info.name == "backbone"
    assert run.info.parameters[0].name == "0.weight"


def test_a_net_that_begins_to_train_late_is_found_and_traced() -> None:
    def train() -> None:
        first, second = nn.Linear(4, 2), nn.Linear(4, 3)
        _steps(first, 40)
        _steps(second, 10)

    seen = watched(train)
    late = seen.named("second")
    assert len(late.steps) == 10
    assert late.traces and late.traces[0].step <= 1


def test_parameters_that_are_added_later_are_known() -> None:
    def train() -> None:
        net = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)])
        optimizer = torch.optim.SGD(net[1].parameters(), 0.1)
        for i in range(8):
            if i == 4:
                optimizer.add_param_group({"params": net[0].parameters()})
            optimizer.zero_grad()
            net[1](net[0](torch.randn(5, 4))).pow(2).mean().backward()
            optimizer.step()

    seen = watched(train)
    assert not seen.incidents
    assert sum(len(m.steps) for m in seen.models) >= 8


def test_looking_for_a_name_keeps_nothing_of_the_callers_variables() -> None:
    class Batch:
        """Something large."""

    net, batch = nn.Linear(2, 2), Batch()
    gone = weakref.ref(batch)
    assert script_name(net) == "net"
    assert batch is not None
    del batch
    assert gone() is None, "a snapshot of the variables is left on the frame"


def test_a_snapshot_that_the_script_itself_took_is_left_to_it() -> None:
    rate = 0.1
    options = locals()
    net = nn.Linear(2, 2)
    assert script_name(net) == "net"
    assert options["rate"] == rate
