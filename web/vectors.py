"""Write what theory says of some nets, for the lab to be held against: `python web/vectors.py web/vectors.json`.

The lab in the page computes the same in the browser; tests/present/test_page_lab.py compares the two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

from unvanish.schema.architecture import LayerSpec
from unvanish.theory.activations import ACTIVATIONS
from unvanish.theory.predict import predict_gains

Norm = Literal["none", "batch", "layer", "rms"]
WIDTH = 64
DEPTH = 6


def vectors() -> list[dict[str, Any]]:
    """Nets of every activation, with several inits, with and without norms and skips, and what theory gives."""
    made = []
    inits = (
        (1 / 3, 1 / (3 * WIDTH), False),
        (1.0, 0.0, False),
        (2.0, 0.05, False),
        (1e-4 * WIDTH, 0.0, False),
    )
    norms: tuple[Norm, ...] = ("none", "batch", "layer")
    for activation in ACTIVATIONS:
        for norm in norms:
            for skip in (False, True):
                for sw2, sb2, centres in (*inits, (4.0, 0.0, True)):
                    made.append(vector(activation, norm, skip, sw2, sb2, centres))
    return made


def vector(activation: str, norm: Norm, skip: bool, sw2: float, sb2: float, centres: bool) -> dict[str, Any]:
    """One net, in the lab's own words, beside theory's numbers for each of them."""
    layers = [
        LayerSpec(
            name=str(i),
            fan_in=WIDTH,
            fan_out=WIDTH,
            weight_variance=sw2,
            bias_variance=sb2,
            bias_centres=centres,
            input_second_moment=1.0 if i == 0 else None,
            norm="none" if i == DEPTH - 1 else norm,
            activation="identity" if i == DEPTH - 1 else activation,
            skip="identity" if skip and i < DEPTH - 1 else "none",
        )
        for i in range(DEPTH)
    ]
    told = [
        {
            "chi": rounded(p.chi),
            "chiRaw": rounded(p.chi_raw),
            "activation": rounded(p.activation_factor),
            "weight": rounded(p.weight_factor),
            "norm": rounded(p.norm_factor),
            "skip": rounded(p.skip_factor),
            "length": rounded(p.length),
        }
        for p in predict_gains(layers)
    ]
    net = {"activation": activation, "norm": norm, "skip": skip, "sw2": sw2, "sb2": sb2, "centres": centres}
    return {"net": net, "width": WIDTH, "depth": DEPTH, "predictions": told}


def rounded(value: float | None) -> float | None:
    """Ten digits: far more than the 1e-6 that the lab is held to."""
    return None if value is None else float(f"{value:.10g}")


if __name__ == "__main__":
    text = json.dumps(vectors(), allow_nan=False, separators=(",", ":"))
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
