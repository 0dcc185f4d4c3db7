"""Nets with identity skips: how fast the signal grows with depth (Hayou et al. 2021; De and Smith 2020)."""

from __future__ import annotations


def residual_growth(depth: int, *, branch_gain: float = 1.0, branch_scale: float = 1.0) -> float:
    """Growth of E[h^2] over `depth` blocks h + a F(h), with E[F(h)^2] = branch_gain E[h^2]: (1 + a^2 gain)^L.

    He-initialised ReLU branches have gain 1: 2^L. a = 1/sqrt(L) keeps it below e (Hayou et al. 2021, "Stable
    ResNet"); a = 0 makes it 1 (Bachlechner et al. 2020, "ReZero"; Zhang et al. 2019, "Fixup").
    """
    return float((1.0 + branch_scale**2 * branch_gain) ** depth)


def normalised_growth(depth: int, *, branch_variance: float = 1.0) -> float:
    """Growth of E[h^2] over `depth` blocks h + F(norm(h)): every branch adds as much, 1 + L.

    De and Smith (2020). The last block's gradient in a pre-norm net falls as its inverse root (Xiong et al.
    2020).
    """
    return 1.0 + branch_variance * depth
