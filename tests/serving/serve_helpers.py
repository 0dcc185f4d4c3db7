"""Real runs of small nets, and a client for the server that shows them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import unvanish
from unvanish.serving.guard import guard_for
from unvanish.serving.runs import Runs
from unvanish.serving.server import Server


def train(out: Path, activation: type[nn.Module], *, steps: int = 120) -> Path:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(8):
        layers += [nn.Linear(16, 16 if i < 7 else 2), activation()]
    net = nn.Sequential(*layers[:-1])
    if activation is nn.ReLU:
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with unvanish.watch(net, optimizer, out=out) as w:
        for _ in range(steps):
            x = torch.randn(32, 16)
            optimizer.zero_grad()
            F.cross_entropy(net(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
    return w.path


@dataclass
class Reply:
    """An answer, whatever its status."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks a server over real HTTP."""

    server: Server

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Reply:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.base + path, headers=names, method=method)  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - ours
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read())


def serving(folder: Path, token: str | None = None) -> Iterator[Client]:
    server = Server(Runs(folder), guard_for("127.0.0.1", token), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Client(server)
    server.shutdown()
    server.close()
    thread.join()
