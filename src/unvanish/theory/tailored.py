"""Leaky ReLU tailored to a net's depth: "Deep learning without shortcuts" (Zhang et al. 2022), "TAT".

A deep net of ReLUs maps all inputs onto nearly the same output (c -> 1). With a larger negative slope it does not:
the slope is chosen such that two orthogonal inputs come out with a given correlation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from unvanish.theory.mean_field import bisect

LocalMap = Callable[[float], float]  # correlation -> correlation, over one layer
NetMap = Callable[
    [LocalMap], float
]  # the local map -> the net's output correlation for two orthogonal inputs


def leaky_relu_correlation(c: float, slope: float) -> float:
    """The correlation map of a leaky ReLU with He weights and no biases, in closed form.

    c + (1-a)^2 / (pi (1+a^2)) (sqrt(1-c^2) - c arccos c); a = 0 is the arc-cosine kernel of degree 1 (Cho and Saul
    2009). ValueError when c is not in [-1, 1].
    """
    if not -1 <= c <= 1:
        raise ValueError(f"a correlation lies in [-1, 1], received {c}")
    bend = (1 - slope) ** 2 / (math.pi * (1 + slope**2))
    return c + bend * (math.sqrt(1 - c * c) - c * math.acos(c))


def tailored_slope(target: float, net: NetMap) -> float | None:
    """The negative slope in [0, 1] at which `net` ends with correlation `target` (Zhang et al. 2022).

    None where even a ReLU (slope 0) stays below it: then nothing has to be tailored. ValueError when the target is
    not in (0, 1).
    """
    if not 0 < target < 1:
        raise ValueError(f"the correlation to end with lies in (0, 1), received {target}")

    def excess(slope: float) -> float:
        return net(lambda c: leaky_relu_correlation(min(c, 1.0), slope)) - target

    return None if excess(0.0) < 0 else bisect(excess, 0.0, 1.0)


def chain(depth: int) -> NetMap:
    """A net of `depth` layers without skips (Zhang et al. 2022)."""

    def net(local: LocalMap) -> float:
        return _repeat(local, 0.0, depth)

    return net


def rescaled_resnet(blocks: tuple[int, ...], *, weight: float, layers: int = 3) -> NetMap:
    """A pre-activation ResNet without norms: w shortcut + sqrt(1 - w^2) branch (Zhang et al. 2022).

    `blocks` per group; each branch has `layers` activations; the first block of a group has one on its shortcut; one
    stands at the end. (3, 4, 23, 3) is ResNet-101. The largest correlation over the subnets counts.
    """
    share = weight**2

    def net(local: LocalMap) -> float:
        c = 0.0
        for count in blocks:
            for block in range(count):
                shortcut = local(c) if block == 0 else c
                c = share * shortcut + (1 - share) * _repeat(local, c, layers)
        return max(local(c), _repeat(local, 0.0, layers))

    return net


def _repeat(local: LocalMap, c: float, times: int) -> float:
    for _ in range(times):
        c = local(c)
    return c
