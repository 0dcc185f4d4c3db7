"""Signal that is lost where norms of layers do not show it: in a softmax, between time steps, in a jump of the rate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import torch
from nets import judge
from torch import Tensor, nn
from torch.nn import functional as F
from watching import Seen, watched

ITEMS, DIM, CLASSES = 10, 24, 5


class Pointer(nn.Module):
    """Attends to the item that is flagged, and names its class."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, DIM))
        self.q, self.k, self.v = (nn.Linear(DIM, DIM, bias=False) for _ in range(3))
        self.out = nn.Linear(DIM, CLASSES)
        for part in (self.q, self.k):
            nn.init.normal_(part.weight, std=scale)

    def forward(self, items: Tensor) -> Tensor:
        scores = self.q(self.query) @ self.k(items).mT / DIM**0.5
        return self.out((scores.softmax(-1) @ self.v(items)).squeeze(1))


class Fused(Pointer):
    """The same by torch's own attention."""

    def forward(self, items: Tensor) -> Tensor:
        query = self.q(self.query).expand(len(items), 1, DIM)
        mixed = F.scaled_dot_product_attention(query, self.k(items), self.v(items))
        return self.out(mixed.squeeze(1))


class Flash(Pointer):
    """The same by its fused kernel, which takes heads."""

    def forward(self, items: Tensor) -> Tensor:
        query = self.q(self.query).expand(len(items), 1, DIM)
        parts = (t.unsqueeze(1) for t in (query, self.k(items), self.v(items)))
        return self.out(F.scaled_dot_product_attention(*parts).flatten(1))


def flagged(rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        items = torch.randn(64, ITEMS, DIM, generator=rng)
        classes = torch.randint(CLASSES, (64, ITEMS), generator=rng)
        items[:, :, :CLASSES] = 2.0 * F.one_hot(classes, CLASSES)
        flag = torch.randint(ITEMS, (64,), generator=rng)
        items[:, :, CLASSES] = 0.0
        items[torch.arange(64), flag, CLASSES] = 3.0
        yield items, classes[torch.arange(64), flag]


def first_symbol(rng: torch.Generator, steps: int = 40) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        labels = torch.randint(3, (64,), generator=rng)
        x = torch.randn(64, steps, 4, generator=rng) * 0.3
        x[:, 0, :3] += 2.0 * F.one_hot(labels, 3)
        yield x, labels


class Last(nn.Module):
    def __init__(self, forget: float, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 24, layers, batch_first=True)
        self.out = nn.Linear(24, 3)
        for name, p in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                p.data[24:48] = forget  # input, forget, cell, output

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def trained(
    net: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], *, lr: float = 3e-3, steps: int = 120
) -> Seen:
    def loop() -> None:
        optimizer = torch.optim.Adam(net.parameters(), lr)
        for _ in range(steps):
            x, y = next(batches)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()

    return watched(loop)


@pytest.mark.parametrize("kind", [Pointer, Fused, Flash])
def test_attention_that_is_one_hot_from_the_start(kind: type[Pointer]) -> None:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    said = judge(trained(kind(8.0), flagged(rng)))
    (finding, *_) = said.findings
    assert (finding.kind, finding.cause) == ("vanishing_gradients", "attention_saturation")
    assert set(finding.layers) <= {"q", "k", "query"} and finding.layers[0] in ("q", "k")


@pytest.mark.parametrize("kind", [Pointer, Fused, Flash])
def test_attention_over_all_items_is_not_called_saturated(kind: type[Pointer]) -> None:
    """It looks at all items alike at the start, and hands back a tenth of the signal: that is what it should do."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    said = judge(trained(kind(0.02), flagged(rng), lr=1e-5))  # and it learns nothing meanwhile
    assert "attention_saturation" not in [f.cause for f in said.findings]


@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_whose_gates_forget_everything(layers: int) -> None:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    said = judge(trained(Last(-4.0, layers), first_symbol(rng), lr=1e-2))
    (finding, *_) = said.findings
    assert (said.verdict, finding.kind, finding.cause) == ("sick", "vanishing_gradients", "recurrence")
    assert finding.layers == ("lstm",)
    assert finding.evidence[0].value < -10  # 40 steps, each of at most 10^-1.7


def test_an_lstm_that_remembers_is_healthy() -> None:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    said = judge(trained(Last(3.0), first_symbol(rng), lr=1e-2, steps=200))
    assert (said.verdict, said.findings) == ("healthy", ())


def test_an_lstm_that_was_hardly_moved_is_not_called_forgetful() -> None:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    said = judge(trained(Last(-4.0), first_symbol(rng), lr=1e-7))
    assert [f.kind for f in said.findings] == ["learning_rate_too_small"]


def test_a_rate_that_jumps_between_two_looks_is_blamed_for_the_nan() -> None:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
    goal = torch.randn(8, 8, generator=rng)

    def loop() -> None:
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.8)
        for step in count():
            if step == 140:
                break
            if step == 67:
                optimizer.param_groups[0]["lr"] = 1e6
            x = torch.randn(64, 8, generator=rng)
            optimizer.zero_grad()
            F.mse_loss(net(x), torch.tanh(x @ goal)).backward()
            optimizer.step()

    said = judge(watched(loop))
    (finding, *_) = said.findings
    assert (finding.kind, finding.cause) == ("exploding_gradients", "learning_rate")
    assert finding.first_step in range(65, 71)


def test_a_deep_net_whose_samples_all_look_alike_does_not_blame_the_labels() -> None:
    """A norm keeps the signal's size, and yet nothing of the input arrives: the labels are in order."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(4, 16), nn.ReLU()]
    for _ in range(30):
        layers += [nn.Linear(16, 16), nn.LayerNorm(16), nn.LeakyReLU()]
    net = nn.Sequential(*layers, nn.Linear(16, 3))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x = torch.randn(64, 4, generator=rng) * 0.1 + 1.0
            yield x, (x[:, 0] > 1.0).long() + (x[:, 1] > 1.0).long()

    def loop() -> None:
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            if next(steps) >= 79:
                return

    steps = count()
    said = judge(watched(loop))
    assert said.findings and "labels" not in [f.cause for f in said.findings], said.reason
