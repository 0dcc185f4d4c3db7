"""What `unvanish explain` gives: the product of factors to a parameter, and the paths to a single weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unvanish.schema.chain import Chain
from unvanish.schema.finding import SCHEMA_VERSION, finite
from unvanish.schema.notebook import html_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStep:
    """One factor of a path, from the loss towards the weight. `label` says what it is: "weight 4[2, 7]"."""

    label: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarPath:
    """One way through named units. `product` is its part of the gradient, summed over the samples of the batch.

    `route`: the units of weighted layers on it, from the loss to the weight. Of several samples the steps' values are
    rms over them (a weight is the same for all); of one they multiply to the product.
    """

    product: float
    route: tuple[str, ...]
    steps: tuple[PathStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarPaths:
    """The gradient of one weight as a sum over paths.

    `gradient` is autograd's, `total` the sum over all `count` paths (None: they could not be followed, and `note`
    says why). `covered` is the sum of the `paths` shown, the strongest first, `remainder` what is left of the total;
    `absolute` the sum of all paths' sizes, sample by sample, and `share` the part of it that the shown ones have.
    `surely`: no other path is stronger than those shown. `unit` says what a path runs through: units of each sample,
    or of the whole batch where an operation mixes its samples.
    `steps`: where no paths could be followed, the layerwise product instead.
    """

    parameter: str
    index: tuple[int, ...]
    weight: float
    gradient: float
    samples: int
    total: float | None = None
    count: float = 0.0
    paths: tuple[ScalarPath, ...] = ()
    covered: float = 0.0
    absolute: float = 0.0
    share: float = 0.0
    surely: bool = True
    mixed: bool = False
    note: str = ""
    steps: tuple[PathStep, ...] = ()

    @property
    def remainder(self) -> float:
        """What the paths that are not shown add up to."""
        return (self.gradient if self.total is None else self.total) - self.covered

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "parameter": self.parameter,
            "index": list(self.index),
            "weight": finite(self.weight),
            "gradient": finite(self.gradient),
            "samples": self.samples,
            "total": finite(self.total),
            "count": finite(self.count),
            "covered": finite(self.covered),
            "remainder": finite(self.remainder),
            "absolute": finite(self.absolute),
            "share": finite(self.share),
            "surely": self.surely,
            "mixed": self.mixed,
            "note": self.note,
            "paths": [
                {"product": finite(p.product), "route": list(p.route), "steps": _steps(p.steps)}
                for p in self.paths
            ],
            "steps": _steps(self.steps),
        }


def _steps(steps: tuple[PathStep, ...]) -> list[dict[str, Any]]:
    return [{"label": s.label, "value": finite(s.value)} for s in steps]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Explanation:
    """The answer of `unvanish.explain`. Printed, it shows the table; `chain` is the first (as a rule the only)."""

    chains: tuple[Chain, ...]
    scalar: ScalarPaths | None = None
    run: str | None = None  # where it is kept; None = nowhere
    text: str = ""  # as it is printed

    @property
    def chain(self) -> Chain:
        """The product of factors of the first model."""
        return self.chains[0]

    def __repr__(self) -> str:
        return self.text or f"Explanation of {', '.join(c.parameter for c in self.chains)}"

    def _repr_html_(self) -> str | None:
        """For notebooks."""
        return html_of(self)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "schema": SCHEMA_VERSION,
            "run": self.run,
            "chains": [chain.to_dict() for chain in self.chains],
            "scalar": None if self.scalar is None else self.scalar.to_dict(),
        }
