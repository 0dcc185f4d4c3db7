"""A folder with two real runs, a sick net and its cured twin, and a server that shows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from serve_helpers import Client, serving, train


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs: `sick` and `twin`."""
    out = tmp_path_factory.mktemp("runs")
    for name, activation in (("sick", nn.Sigmoid), ("twin", nn.ReLU)):
        train(out, activation).rename(out / name)
    return out


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    yield from serving(folder)


@pytest.fixture
def closed(folder: Path) -> Iterator[Client]:
    """A server that wants the token "open sesame!"."""
    yield from serving(folder, "open sesame!")
