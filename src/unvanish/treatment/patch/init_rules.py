"""How one drawn parameter is written in torch.nn.init's words, so that the very same numbers come out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from unvanish.treatment.patch.facts import Drawn

Lines = tuple[str, ...]
RECURRENT = frozenset(f"torch.nn.{name}{cell}" for name in ("RNN", "LSTM", "GRU") for cell in ("", "Cell"))


@dataclass(frozen=True, slots=True)
class Writer:
    """How the lines are written: the file's names for torch and torch.nn.init, and where weights may be.

    Where a weight may be on a GPU or in half precision, it is drawn as float32 on the CPU and copied.
    """

    torch: str
    init: str
    in_place: bool

    def ways(self, drawn: Drawn, target: str) -> list[Lines]:
        """All ways to draw this parameter, as lines for the expression `target`; the most telling first."""
        if drawn.kept:
            return []
        if drawn.kind == "constant":
            return [(self._constant(target, drawn.size),)]
        if drawn.kind == "centred":
            return [(f"{target}.copy_(-{drawn.size!r} * layer.weight.flatten(1).sum(1))",)]
        found = []
        for function, arguments in _calls(drawn):
            lines = self._draw(function, arguments, target, drawn.pieces)
            blank = () if drawn.blank is None else (f"{target}[{drawn.blank}] = 0.0",)
            found.append((*lines, *blank))
        return found

    def recurrent(self, drawn: Sequence[Drawn]) -> list[Lines]:
        """Lines for a recurrent layer, whatever its number of layers and directions; none = not to be summed up."""
        by_part: dict[str, list[Drawn]] = {}
        for one in drawn:
            by_part.setdefault("bias" if one.name.startswith("bias") else one.name[:9], []).append(one)
        lines = ["for name, value in layer.named_parameters():"]
        word = "if"
        for part, some in by_part.items():
            common = _shared([self.ways(one, "value") for one in some])
            if part == "bias":
                common = _shared([self._gates(one) for one in some])
            if not common:
                return []
            head = "else:" if part == "bias" else f'{word} name.startswith("{part}"):'
            lines += [f"    {head}", *(f"        {line}" for line in common[0])]
            word = "elif"
        return (
            [tuple(lines)]
            if list(by_part) in (["weight_ih", "weight_hh", "bias"], ["weight_ih", "weight_hh"])
            else []
        )

    def _gates(self, drawn: Drawn) -> list[Lines]:
        """A bias of which some gates are kept (i, f, g, o: an LSTM's forget gate)."""
        if drawn.kind != "constant" or not drawn.kept:
            return self.ways(drawn, "value")
        places = ", ".join(str(i) for i in range(drawn.pieces) if i not in drawn.kept)
        part = self._constant(f"value.chunk({drawn.pieces})[gate]", drawn.size)
        return [(f"for gate in ({places}):  # the forget gate's stays", f"    {part}")]

    def _constant(self, target: str, size: float) -> str:
        plain = {0.0: "zeros_", 1.0: "ones_"}.get(size)
        return f"{self.init}.{plain}({target})" if plain else f"{self.init}.constant_({target}, {size!r})"

    def _draw(self, function: str, arguments: str, target: str, pieces: int) -> Lines:
        whole = target if self.in_place else "fresh"
        one = whole if pieces == 1 else "part"
        behind = f", {arguments}" if arguments else ""
        call = f"{self.init}.{function}({one}{behind.replace('{w}', one)}, generator=generator)"
        lines = [call] if pieces == 1 else [f"for part in {whole}.chunk({pieces}):", f"    {call}"]
        if not self.in_place:
            fresh = f"fresh = {self.torch}.empty({target}.shape, dtype={self.torch}.float32)"
            lines = [fresh, *lines, f"{target}.copy_(fresh)"]
        return tuple(lines)


def _shared(ways: Sequence[list[Lines]]) -> list[Lines]:
    """The ways that serve all."""
    return [way for way in ways[0] if all(way in other for other in ways)]


def _calls(drawn: Drawn) -> Iterator[tuple[str, str]]:
    """(function of torch.nn.init, arguments behind the tensor) that give exactly this draw; {w} is the tensor."""
    piece = replace(drawn, pieces=1, shape=(drawn.shape[0] // drawn.pieces, *drawn.shape[1:]))
    size = drawn.size
    if drawn.kind == "orthogonal":
        if size == 1.0:
            yield "orthogonal_", ""
        gain = "" if drawn.gain == 1.0 else f"{drawn.gain!r} * "
        if drawn.gain * max(1.0, piece.shape[0] / math.prod(piece.shape[1:])) ** 0.5 == size:
            yield "orthogonal_", f"{gain}max(1.0, len({{w}}) / {{w}}[0].numel()) ** 0.5"
        yield "orthogonal_", repr(size)
        return
    yield from _by_fan(piece)
    yield ("uniform_", f"-{size!r}, {size!r}") if drawn.kind == "uniform" else ("normal_", f"std={size!r}")


def _by_fan(piece: Drawn) -> Iterator[tuple[str, str]]:
    """torch's own kaiming and xavier, where they count the fans as the recipe does."""
    if piece.inward != math.prod(piece.shape[1:]):  # transposed
        return
    root = math.sqrt(3.0) if piece.kind == "uniform" else 1.0
    gains = {'nonlinearity="relu"': math.sqrt(2.0), 'nonlinearity="linear"': 1.0}
    if 1.0 < piece.gain < math.sqrt(2.0):
        slope = float(f"{math.sqrt(2.0 / piece.gain**2 - 1.0):.12g}")
        gains[f'a={slope!r}, nonlinearity="leaky_relu"'] = math.sqrt(2.0 / (1 + slope**2))
    for words, gain in gains.items():
        if root * (gain / math.sqrt(piece.inward)) == piece.size:
            yield f"kaiming_{piece.kind}_", words
    outward = piece.shape[0] * math.prod(piece.shape[2:])
    if root * math.sqrt(2.0 / float(piece.inward + outward)) == piece.size:
        yield f"xavier_{piece.kind}_", ""
    if piece.kind == "normal" and piece.gain / piece.inward**0.5 == piece.size:
        yield "normal_", f"std={piece.gain!r} / {{w}}[0].numel() ** 0.5"
