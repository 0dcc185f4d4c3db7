"""The init at which an activation passes the gradient on: chi = 1 (Schoenholz et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unvanish.theory.activations import Activation
from unvanish.theory.gaussian import derivative_moment, second_moment


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalInit:
    """fan_in Var(W) = `sw2`, Var(b) = `sb2`, and b = -W `offset` on top; `q` is the length that stays.

    `offset` is 0 where the activation is 0 at 0. Weights may be Gaussian or orthogonal (then sqrt(sw2) is the gain);
    with an offset they should be orthogonal, as nothing but their norm keeps q from wandering.
    """

    sw2: float
    sb2: float
    q: float
    offset: float = 0.0


def critical_init_at(phi: Activation, q: float) -> CriticalInit | None:
    """The init that keeps length q and has chi = 1 there; None where that takes a negative Var b.

    sw2 = 1 / E[phi'^2], sb2 = q - sw2 E[phi^2]: the critical line, parametrised by its length (Hayou et al. 2019).
    ValueError when q is not a variance.
    """
    sw2 = 1 / derivative_moment(phi, q)
    sb2 = q - sw2 * second_moment(phi, q)
    if sb2 < -1e-12 * q:
        return None
    return CriticalInit(sw2=sw2, sb2=max(sb2, 0.0), q=q)


def centred_init(phi: Activation) -> CriticalInit:
    """The critical init of z = W (h - phi(0)) + 0, around z = 0: sw2 = 1 / phi'(0)^2, b = -W phi(0).

    For a sigmoid sw2 = 16 (orthogonal, gain 4) and b = -W/2, where uncentred it takes sw2 = 102.6. It follows from
    sigmoid(u) = 1/2 + tanh(u/2)/2 and tanh's critical point sw2 = 1, sb2 = 0 (Schoenholz et al. 2016; with orthogonal
    weights Pennington et al. 2017). At a kink both sides count half: He et al. (2015) for a ReLU. q falls to 0
    slowly, as 1/depth: iterate it (`mean_field.lengths`), do not take its fixed point.
    """
    offset = float(phi.function(np.zeros(1))[0])
    return CriticalInit(sw2=1 / derivative_moment(phi, 0.0), sb2=0.0, q=0.0, offset=offset)
