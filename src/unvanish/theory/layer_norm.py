"""Gradients through layer norm and rms norm before the activation (Ba et al. 2016; Zhang and Sennrich 2019)."""

from __future__ import annotations

from unvanish.theory.activations import Activation
from unvanish.theory.gaussian import derivative_moment, second_moment


def layer_norm_gain(phi: Activation, sb2_share: float = 0.0) -> float:
    """The gain of E[delta^2] per layer of linear, layer norm, phi: E[phi'^2] (1 - share) / E[phi^2] at q = 1.

    Each row is scaled to length 1, so sw2 cancels: Var z = sw2 E[phi^2] + sb2, of which `sb2_share` is the bias's.
    Infinite width, where a row's mean is 0 and the norm's own two projections cost nothing (Ba et al. 2016,
    section 5; the same mean field as Yang et al. 2019, over features instead of the batch). 1 for a ReLU, which batch
    norm makes pi / (pi - 1): layer norm leaves the mean of phi in place. ValueError when the share is not in [0, 1].
    """
    if not 0 <= sb2_share <= 1:
        raise ValueError(f"a share lies in [0, 1], received {sb2_share}")
    return derivative_moment(phi, 1.0) * (1 - sb2_share) / second_moment(phi, 1.0)


def rms_norm_gain(phi: Activation, sb2_share: float = 0.0) -> float:
    """The same number for rms norm, which differs in the row's mean alone (Zhang and Sennrich 2019).

    ValueError when the share is not in [0, 1].
    """
    return layer_norm_gain(phi, sb2_share)
