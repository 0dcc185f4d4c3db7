"""What is known of a script that ran until its first optimizer step: the nouns that a source patch is made of.

Plain values only: they travel from the child process that ran the script, and need no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from unvanish.schema.treatment import Prescription


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A call in a source. Where it ends tells which one it is: no two calls end at the same place.

    `file` is relative to the root, with slashes. `end` is (line, column), the column in bytes of UTF-8, and None
    where python does not keep it (before 3.11): then the line (of the call's beginning) has to do.
    """

    file: str
    line: int
    end: tuple[int, int] | None
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """Where a module was built. `direct`: by the call at `site` itself, not by library code that this call ran.

    `outer` are the calls that led there, the innermost first.
    """

    site: Site
    direct: bool
    outer: tuple[Site, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module of the untreated model. `kind` is its class ("torch.nn.Linear" where it is one of torch.nn's).

    `base` is the nearest class of torch.nn that it is an instance of.

    `holder` is its parent's kind, `name` its name there; `places` counts all names under which it is registered.
    """

    path: str
    kind: str
    base: str
    birth: Birth | None
    holder: str
    name: str
    places: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """An activation that was called as a function in a forward pass. `kept` says why it must stay ("" = hidden)."""

    name: str
    site: Site | None
    owner: str  # path of the module whose forward made the call
    kept: str
    layer: str | None  # path of the weighted module whose output it takes (dropout and the like between)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerFact:
    """An optimizer that holds parameters of the model: where it is built, and how that frame calls the model."""

    site: Site | None
    kind: str
    names: tuple[str, ...]  # expressions for the model there, the best first
    rates: tuple[float, ...]  # per group
    ours: tuple[bool, ...]  # per group: whether it holds a parameter of this model
    default_rate: float
    outer: tuple[tuple[Site, tuple[str, ...]], ...] = ()  # the frames around, with their names for the model
    whole: bool = True  # whether all of the model's trainable parameters are in it


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFact:
    """Where an optimizer steps (`scaled`: through a GradScaler), and how that frame calls the model."""

    site: Site | None
    names: tuple[str, ...]
    scaled: bool
    closure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A place where the script, before it has an optimizer, goes through a module's parts (`method`)."""

    path: str
    method: str
    site: Site


# --- what each prescription changes -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A module's class is another one now. `arguments` as python writes them; None: the same as before."""

    path: str
    old: str
    new: str
    arguments: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSwap:
    """A called function is another one now (`name` as torch.nn.functional has it; "identity" takes it away).

    `old` are the names of what ran there. `arguments` stand behind the value; None: the same as before. `owners` are
    the paths of the modules whose forward makes the call.
    """

    site: Site
    old: tuple[str, ...]
    name: str
    arguments: str | None
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A norm stands behind a layer, in front of its activation (a module's path, or a called function's site).

    `axes` are those of the layer's output [batch, ..., features] (0: not seen): torch's own batch norm and group norm
    take the last axis for the features where there are two.
    """

    layer: str
    kind: str
    before: str  # arguments in front of the number of features: GroupNorm's groups
    features: int
    axes: int
    activation: str | None
    function: Site | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """An identity skip around a run of modules in a container: from `first` to `last`, both original paths."""

    first: str
    last: str
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSkip:
    """An identity skip in a forward: what goes into the call at `first` is added to what the call at `last` gives.

    `mixed`: layers that change the shape pass here, too, without a skip.
    """

    first: Site
    last: Site
    scale: float
    mixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One parameter of an init, as treatment.draw.Draw says it."""

    path: str
    module: str  # as Part.base
    name: str
    kind: str
    size: float
    pieces: int
    kept: tuple[int, ...]
    blank: int | None
    inward: int
    outward: int
    gain: float
    shape: tuple[int, ...]
    stored: bool  # float32 on the CPU, contiguous: it can be drawn in place


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """A module without parameters stands behind a layer: what makes the output now."""

    layer: str
    kind: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """The data is standardised in front of a layer ("" = at the model's door, the argument `name`).

    `axis` is that of the features, counted from the end.
    """

    layer: str
    name: str
    features: int
    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one prescription did to the model. `refused` says why it could not be read (None = it was)."""

    prescription: Prescription
    swaps: tuple[Swap, ...] = ()
    functions: tuple[FunctionSwap, ...] = ()
    norms: tuple[Norm, ...] = ()
    skips: tuple[Skip, ...] = ()
    call_skips: tuple[CallSkip, ...] = ()
    uneven: tuple[str, ...] = ()  # first modules of runs that got no skip, since they change the shape
    dropped: tuple[str, ...] = ()  # paths of the modules that are gone from their containers
    appended: tuple[Appended, ...] = ()
    entrances: tuple[Entrance, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    seed: int | None = None
    seed_mark: int = 0
    partial: bool = False  # some parameters of the drawn modules were left, being frozen
    refused: str | None = None
    only_here: str | None = None  # why the model itself can not be changed so, which the source can


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a patch is made of. `changes` follow the prescriptions; `digests` are of the files as they ran."""

    root: str  # the folder that paths are relative to
    model: str  # class of the model
    parts: dict[str, Part]
    born: dict[
        Site, tuple[str | None, ...]
    ]  # all modules alive that were built there; None: not in the model
    visits: tuple[
        tuple[str, Site | None], ...
    ]  # modules as they were called, in order; None: by library code
    functions: tuple[FunctionCall, ...]
    optimizers: tuple[OptimizerFact, ...]
    steps: tuple[StepFact, ...]
    walks: tuple[Walk, ...]
    changes: tuple[Change, ...]
    learning_rate: float | None = None  # what the recipe sets the first group's rate to
    seed: int | None = None
    digests: dict[str, str] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()  # names of parameters that are not trained
    unwatched: str | None = None  # why the forward pass was not seen
    # without an optimizer: the model's first call in training and those around it, outwards, with its names there
    began: tuple[tuple[Site, tuple[str, ...]], ...] = ()

    def children(self, path: str) -> list[str]:
        """Paths of the modules that a module holds itself, in order."""
        return [p for p in self.parts if p != path and p.rpartition(".")[0] == path and p]

    def calls_of(self, path: str) -> list[Site | None]:
        """Where the module was called in the pass."""
        return [site for visited, site in self.visits if visited == path]

    def births(self, paths: Iterable[str]) -> dict[Site, list[str]] | str:
        """These modules by the call that built each; or a sentence on the first one that can't be placed."""
        found: dict[Site, list[str]] = {}
        for path in paths:
            part = self.parts.get(path)
            if part is None or part.birth is None:
                return f"where {path} is built was not seen"
            if not part.birth.direct:
                where = part.birth.site
                return f"{path} is built by library code that {where.file}:{where.line} calls"
            found.setdefault(part.birth.site, []).append(path)
        return found
