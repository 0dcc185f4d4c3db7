"""An init as a few lines of plain torch that draw the very numbers that the recipe draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from unvanish.treatment.patch.facts import Change, Drawn, Facts
from unvanish.treatment.patch.init_rules import RECURRENT, Lines, Writer
from unvanish.treatment.patch.spelling import Spelling
from unvanish.treatment.patch.text import PatchError

_SAYS = {
    "he": "He et al. (2015): variance 2 / fan_in in front of rectifiers",
    "xavier": "Glorot & Bengio (2010): variance 2 / (fan_in + fan_out)",
    "lecun": "LeCun et al. (1998): variance 1 / fan_in",
    "orthogonal": "Saxe et al. (2014): orthogonal matrices",
    "critical": "Schoenholz et al. (2017): the critical variance of mean field theory",
    "critical_centred": "Orthogonal matrices at the critical gain, biases that take the activation's mean away",
}
_MANY = "the layers are drawn in too many ways for a loop"


def init_function(
    facts: Facts, change: Change, spelling: Spelling, *, in_place: bool, renamed: bool
) -> list[str]:
    """The lines of a function `{name}(model)`.

    `in_place`: the weights are float32 on the CPU whenever the script runs. `renamed`: other changes of the patch
    rename modules, so that names can't be used.

    Raises:
        PatchError: this init has no such form.
    """
    scheme = str(change.prescription.parameters.get("scheme"))
    if scheme not in _SAYS:
        raise PatchError(
            f"the {scheme} init measures a batch, which a function of the model alone can't",
            "use unvanish.apply in the script, or another scheme",
        )
    torch = spelling.write("torch.Generator").removesuffix(".Generator")
    stored = in_place and all(one.stored for one in change.drawn)
    writer = Writer(torch=torch, init=spelling.write("torch.nn.init"), in_place=stored)
    try:
        body = _walk(facts, change, spelling, writer)
    except PatchError:
        if renamed:
            raise
        body = _table(change, writer)
    seed = change.seed if change.seed is not None else facts.seed
    mark = change.seed_mark
    start = f"{torch}.initial_seed() ^ {mark:#x}" if seed is None else f"{seed} ^ {mark:#x}"
    return [
        f"@{torch}.no_grad()",
        "def {name}(model):",
        f'    """{_SAYS[scheme]}."""',
        f"    generator = {torch}.Generator().manual_seed({start})",
        *_deeper(body),
    ]


def _deeper(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


# --- a walk over the modules --------------------------------------------------------------------------------------


def _walk(facts: Facts, change: Change, spelling: Spelling, writer: Writer) -> list[str]:
    """One loop over all modules of the drawn kinds, in the order of model.modules()."""
    layers: dict[str, list[Drawn]] = {}
    for one in change.drawn:
        layers.setdefault(one.path, []).append(one)
    kinds = list(dict.fromkeys(one.module for one in change.drawn))
    if any(kind.rpartition(".")[2] in ("Module", "ParameterList", "ParameterDict") for kind in kinds):
        raise PatchError("matrices of custom modules are drawn")
    prefix = "" if change.prescription.target == "*" else change.prescription.target
    held = [p for p, base in _bases(facts, change).items() if base in kinds and _within(p, prefix)]
    if held != list(layers) or change.partial:
        raise PatchError("not all layers of a kind are drawn")
    body = _body(list(layers.values()), kinds, spelling, writer)
    names = [spelling.write(kind) for kind in kinds]
    asked = names[0] if len(names) == 1 else f"({', '.join(names)})"
    root = "model" + "".join(f"[{n}]" if n.isdigit() else f".{n}" for n in prefix.split(".") if n)
    listed = f"[m for m in {root}.modules() if isinstance(m, {asked})]"
    text = "\n".join(body)
    if "in (" in text and "if index " in text:
        return [f"layers = {listed}", "for index, layer in enumerate(layers):", *_deeper(body)]
    if "layers[" in text:
        return [f"layers = {listed}", "for layer in layers:", *_deeper(body)]
    if len(kinds) == 1:
        return [
            f"for layer in {root}.modules():",
            f"    if isinstance(layer, {asked}):",
            *_deeper(_deeper(body)),
        ]
    return [f"for layer in {listed}:", *_deeper(body)]


def _bases(facts: Facts, change: Change) -> dict[str, str]:
    """The class of each module when the init is at work, after the changes in front of it."""
    bases = {path: part.base for path, part in facts.parts.items()}
    for earlier in facts.changes[: facts.changes.index(change)]:
        bases.update({swap.path: f"torch.nn.{swap.new}" for swap in earlier.swaps})
        gone = [p for p in bases if any(_within(p, top) for top in earlier.dropped)]
        for path in gone:
            del bases[path]
    return bases


def _within(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + ".")


def _body(
    layers: Sequence[list[Drawn]], kinds: Sequence[str], spelling: Spelling, writer: Writer
) -> list[str]:
    """The loop's body: one branch per kind, where these are not drawn alike."""
    branches: dict[Lines, list[str]] = {}
    for kind in kinds:
        here = {i: drawn for i, drawn in enumerate(layers) if drawn[0].module == kind}
        lines = tuple(_kind(here, len(layers), writer))
        branches.setdefault(lines, []).append(spelling.write(kind))
    if len(branches) == 1:
        return list(next(iter(branches)))
    # Linear and convolutions may be of one branch although another kind stands between them
    found: list[str] = []
    for place, (lines, names) in enumerate(branches.items()):
        asked = names[0] if len(names) == 1 else f"({', '.join(names)})"
        head = "if" if place == 0 else "elif"
        found += [f"{head} isinstance(layer, {asked}):", *_deeper(lines)]
    return found


def _kind(layers: Mapping[int, list[Drawn]], count: int, writer: Writer) -> list[str]:
    """Lines for all layers of one kind, by their places among all `count` layers."""
    first = next(iter(layers.values()))
    if first[0].module in RECURRENT:
        return _grouped({i: writer.recurrent(drawn) for i, drawn in layers.items()}, count)
    lines: list[str] = []
    for name in dict.fromkeys(d.name for drawn in layers.values() for d in drawn):
        slot = {i: [d for d in drawn if d.name == name] for i, drawn in layers.items()}
        ways = {i: writer.ways(some[0], f"layer.{name}") for i, some in slot.items() if some}
        here = _grouped(ways, count)
        if len(ways) < len(layers):  # some layers have no bias
            here = [f"if layer.{name} is not None:", *_deeper(here)]
        lines += here
    return lines


def _grouped(ways: Mapping[int, list[Lines]], count: int) -> list[str]:
    """One way for most layers, and branches for the rest."""
    groups: list[tuple[Lines, list[int]]] = []
    left = dict(ways)
    while left:
        votes = Counter(way for some in left.values() for way in dict.fromkeys(some))
        if not votes or len(groups) > 3:
            raise PatchError(_MANY)
        most = max(votes.values())
        best = next(way for some in left.values() for way in some if votes[way] == most)
        places = [i for i, some in left.items() if best in some]
        groups.append((best, places))
        left = {i: some for i, some in left.items() if i not in places}
    lines: list[str] = []
    for way, places in groups[1:]:
        where = f"index in ({', '.join(map(str, places))}{',' if len(places) == 1 else ''})"
        if places == [count - 1]:
            where = "layer is layers[-1]"
        elif places == [0]:
            where = "layer is layers[0]"
        lines += [f"{'elif' if lines else 'if'} {where}:", *_deeper(way)]
    return [*lines, "else:", *_deeper(groups[0][0])] if lines else list(groups[0][0])


# --- a table of names ---------------------------------------------------------------------------------------------


def _table(change: Change, writer: Writer) -> list[str]:
    """Every parameter by its name: for nets that no rule sums up."""
    lines: list[str] = []
    for one in change.drawn:
        name = f"{one.path}.{one.name}" if one.path else one.name
        if one.kept or one.kind == "centred":
            raise PatchError(_MANY)
        lines += writer.ways(one, f'model.get_parameter("{name}")')[0]
    return lines
