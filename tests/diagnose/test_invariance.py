"""What must not change a diagnosis: the loss's scale, the order of units, a rescaled pair, the batch, the dtype, names."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import CLASSES, FEATURES, X, Y, he, judge, mlp, spread
from torch import nn
from torch.nn import functional as F
from watching import watched

NETS: dict[str, tuple[Callable[[], nn.Sequential], float]] = {
    "deep sigmoid": (lambda: mlp(10, nn.Sigmoid), 0.1),
    "deep ReLU, default init": (lambda: mlp(14, nn.ReLU), 0.05),
    "tanh, small init": (lambda: mlp(12, nn.Tanh, init=spread(0.05)), 0.05),
    "dead by its biases": (lambda: dead(mlp(4, nn.ReLU)), 0.1),
    "steps of nothing": (lambda: mlp(3, nn.ReLU), 1e-7),
    "healthy ReLU": (lambda: mlp(4, nn.ReLU, init=he), 0.05),
    "healthy tanh": (lambda: mlp(3, nn.Tanh), 0.2),
}


def dead(net: nn.Sequential) -> nn.Sequential:
    nn.init.constant_(net[4].bias, -20.0)  # type: ignore[arg-type]
    return net


def permuted(net: nn.Sequential) -> nn.Sequential:
    order = torch.randperm(32)
    first, second = net[0], net[2]
    with torch.no_grad():
        for tensor in (first.weight, first.bias):
            tensor.copy_(tensor[order].clone())  # type: ignore[union-attr, operator, index]
        second.weight.copy_(second.weight[:, order].clone())  # type: ignore[union-attr, operator, index]
    return net


def rescaled(net: nn.Sequential) -> nn.Sequential:
    if isinstance(net[1], nn.ReLU):  # the same function: the second layer undoes what the first does
        with torch.no_grad():
            net[0].weight.mul_(4), net[0].bias.mul_(4), net[2].weight.div_(4)  # type: ignore[union-attr, operator]
    return net


class Renamed(nn.Module):
    """The same layers under names that say nothing, and one that would break a page."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.x = nn.ModuleDict({f"{chr(ord('a') + i)}<script>": layer for i, layer in enumerate(net)})

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        for layer in self.x.values():
            h = layer(h)
        return h


def told(
    name: str, *, scale: float = 1.0, batch: int = 64, double: bool = False, late: int = 0,
    change: Callable[[nn.Sequential], nn.Module] = lambda net: net,
) -> tuple[str, str | None, str | None]:  # fmt: skip
    """(verdict, kind, cause) of a training."""
    make, lr = NETS[name]
    torch.manual_seed(5)
    net = change(make())
    x = X.double() if double else X
    net = net.double() if double else net
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr / scale)

    def steps(count: int) -> None:
        for _ in range(count):
            rows = torch.randint(len(x), (batch,), generator=rng)
            optimizer.zero_grad()
            (F.cross_entropy(net(x[rows]), Y[rows]) * scale).backward()
            optimizer.step()

    steps(late)
    model = judge(watched(lambda: steps(120)))
    first = model.findings[0] if model.findings else None
    return model.verdict, first and first.kind, first and first.cause


plain = functools.cache(told)

CHANGES = st.one_of(
    st.builds(lambda e: {"scale": 10.0**e}, st.floats(-5, 5)),
    st.builds(lambda n: {"batch": n}, st.sampled_from([16, 32, 128, 256])),
    st.just({"double": True}),
    st.just({"change": permuted}),
    st.just({"change": rescaled}),
    st.just({"change": Renamed}),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(NETS)), CHANGES)
def test_the_diagnosis_does_not_change(name: str, change: dict[str, object]) -> None:
    assert told(name, **change) == plain(name)  # type: ignore[arg-type]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["deep sigmoid", "deep ReLU, default init", "dead by its biases", "steps of nothing"]),
    st.integers(1, 40),
)
def test_watching_that_begins_later_says_the_same(name: str, late: int) -> None:
    assert told(name, late=late) == plain(name)


def test_the_nets_are_what_they_are_called() -> None:
    assert {name: told(name)[0] for name in NETS} == {
        "deep sigmoid": "sick",
        "deep ReLU, default init": "sick",
        "tanh, small init": "sick",
        "dead by its biases": "sick",
        "steps of nothing": "not_learning",
        "healthy ReLU": "healthy",
        "healthy tanh": "healthy",
    }
    assert CLASSES == 5 and FEATURES == 16
