"""Nets with identity skips: how fast the signal grows with depth (Hayou et al. 2021; De and Smith 2020)."""

from __future__ import annotations

PRE_NORM_EXPONENT = -0.5  # of the depth, in the last block's gradient, in the limit (Xiong et al. 2020)
POST_NORM_EXPONENT = 0.0


def residual_growth(depth: int, *, branch_gain: float = 1.0, branch_scale: float = 1.0) -> float:
    """Growth of E[h^2] over `depth` blocks h + a F(h), with E[F(h)^2] = branch_gain E[h^2]: (1 + a^2 gain)^L.

    He-initialised ReLU branches have gain 1: 2^L. a = 1/sqrt(L) keeps it below e (Hayou et al. 2021, "Stable
    ResNet"); a = 0 makes it 1 (Bachlechner et al. 2020, "ReZero"; Zhang et al. 2019, "Fixup").
    """
    return float((1.0 + branch_scale**2 * branch_gain) ** depth)


def residual_gain(branch_chi: float, *, branch_scale: float = 1.0, shortcut: float = 1.0) -> float:
    """The gain of E[delta^2] over one block s h + a F(h): s^2 + a^2 chi of the branch.

    The two paths' gradients are uncorrelated, as the branch's last weights have mean 0 (Yang and Schoenholz 2017).
    """
    return shortcut**2 + branch_scale**2 * branch_chi


def normalised_growth(depth: int, *, branch_variance: float = 1.0) -> float:
    """Growth of E[h^2] over `depth` blocks h + F(norm(h)): every branch adds as much, 1 + L.

    De and Smith (2020). The last block's gradient in a pre-norm net falls as its inverse root (Xiong et al.
    2020).
    """
    return 1.0 + branch_variance * depth


def last_block_gradient(depth: int, *, pre_norm: bool, branch_variance: float = 1.0) -> float:
    """The rms gradient in the last block's feed-forward weights, relative to that of depth 0 (Xiong et al. 2020).

    Pre-norm with a norm at the end: (1 + L v)^-1/2, with v what each of L blocks adds to E[h^2], in units of what it
    begins with; of exponent -1/2 in the limit (theorem 1: an upper bound of that order). Post-norm: the bound does
    not depend on the depth, and 1 is returned.
    """
    return normalised_growth(depth, branch_variance=branch_variance) ** -0.5 if pre_norm else 1.0
