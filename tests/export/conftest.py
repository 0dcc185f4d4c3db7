"""A real run with odd names in it, and the tables of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import unvanish
from unvanish import session
from unvanish.schema.run import Run

sys.path.insert(0, str(Path(__file__).parent))

from export_names import FORMULA


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six sigmoid layers for 40 steps, one of them with the name of a formula; the last loss is NaN."""
    torch.manual_seed(0)
    net = nn.Sequential()
    for i in range(6):
        net.add_module(FORMULA if i == 2 else f"lin{i}", nn.Linear(8, 8))
        net.add_module(f"act{i}", nn.Sigmoid())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with unvanish.watch(net, optimizer, out=tmp_path_factory.mktemp("runs")) as w:
        for step in range(40):
            optimizer.zero_grad()
            loss = net(torch.randn(16, 8)).square().mean()
            (loss * torch.nan if step == 39 else loss).backward()
            optimizer.step()
    return session.load(w.path)
