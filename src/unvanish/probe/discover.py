"""Find the models of a run by themselves: from what is called, and from what holds what an optimizer steps."""

from __future__ import annotations

import gc
import inspect
import sys
import weakref
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_DULL = frozenset(("self", "module", "mod", "m", "root", "obj", "cls", "net_"))
_FRAMES = 12
T = TypeVar("T")


class LooseParameters:
    """Stands for tensors that an optimizer steps and no module of the script holds.

    Where they are copies that the script keeps of a module's parameters (float32 masters of a float16 net, say), the
    signal runs through that module: `working` gives the names and the modules, and `aliases` its own parameters.
    """

    def __init__(self, tensors: Iterable[Tensor], working: nn.Module | None = None) -> None:
        """Tensors are named as the working module does, else as the script calls them, else by position."""
        self._working = None if working is None else weakref.ref(working)
        own = [] if working is None else list(working.named_parameters())
        self.aliases = {id(p): name for name, p in own}
        self.dtypes = [p.dtype for _, p in own]  # that the signal is computed in
        names = [name for name, _ in own]
        self.named = [
            (names[i] if names else script_name(t) or f"tensor{i}", t) for i, t in enumerate(tensors)
        ]

    @property
    def working(self) -> nn.Module | None:
        """The module that they are copies of, while the script keeps it."""
        return None if self._working is None else self._working()

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """(name, tensor) pairs."""
        return iter(self.named)

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        """Those of the working module."""
        found: Iterable[tuple[str, nn.Module]] = () if self.working is None else self.working.named_modules()
        return found


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All tensors that an optimizer steps, in the order of its groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def holders(
    optimizer: torch.optim.Optimizer, called: Iterable[nn.Module]
) -> list[nn.Module | LooseParameters]:
    """The models that an optimizer steps: the outermost modules that hold its parameters.

    A module counts where the script called it itself, or where all its trainable parameters are in this
    optimizer. So an encoder and a decoder that are called apart but live in one model are one model, while
    the two nets of a GAN in a common container, with an optimizer each, stay apart. Tensors that no module
    holds come as LooseParameters.
    """
    stepped = {id(p) for p in parameters_of(optimizer)}
    called = list(called)
    for module in called:
        if stepped <= {id(p) for p in module.parameters()}:
            return [unwrap(module)]  # and not what else may hold it (a trainer, a loss with a net inside)
    found: dict[int, nn.Module] = {}
    for module in [*called, *living_modules()]:
        trainable = [p for p in module.parameters() if p.requires_grad]
        if not any(id(p) in stepped for p in trainable):
            continue
        if all(id(p) in stepped for p in trainable) or any(module is c for c in called):
            found[id(module)] = module
    inner = {id(m) for top in found.values() for m in top.modules() if m is not top}
    tops: list[nn.Module | LooseParameters] = []
    held: set[int] = set()
    for key, module in found.items():
        if key in inner:
            continue
        top = unwrap(module)
        if any(top is t for t in tops):
            continue
        tops.append(top)
        held |= {id(p) for p in top.parameters()}
    tops = [_with_its_working_copy(top, called) for top in tops]
    loose = [p for p in parameters_of(optimizer) if id(p) not in held]
    if loose:
        tops.append(LooseParameters(loose, _original_of(loose, called)))
    return tops


def _with_its_working_copy(
    top: nn.Module | LooseParameters, called: Sequence[nn.Module]
) -> nn.Module | LooseParameters:
    """A module that the script steps and never calls, while it calls a copy: the signal runs through the copy."""
    if isinstance(top, LooseParameters):
        return top
    inside = {id(m) for m in top.modules()}
    if any(id(m) in inside for m in called) or any(top is not m and _holds(m, top) for m in called):
        return top
    own = {id(p) for p in top.parameters()}
    apart = [m for m in called if not any(id(p) in own for p in m.parameters())]
    working = _original_of(list(top.parameters()), apart)
    return top if working is None else LooseParameters(top.parameters(), working)


def _holds(outer: nn.Module, inner: nn.Module) -> bool:
    return any(m is inner for m in outer.modules())


def _original_of(copies: Sequence[Tensor], called: Iterable[nn.Module]) -> nn.Module | None:
    """The module that the script calls whose parameters have these very shapes and, as yet, values."""
    if all(copy.grad is None for copy in copies):
        return None  # nobody hands them what the module gets: they are what is left of another net
    for module in called:
        own = list(module.parameters())
        if len(own) != len(copies) or any(p.shape != c.shape for p, c in zip(own, copies, strict=True)):
            continue
        graded = any(p.grad is not None for p in own)
        if graded or all(_alike(p, c) for p, c in zip(own, copies, strict=True)):
            return unwrap(module)
    return None


def _alike(parameter: Tensor, copy: Tensor) -> bool:
    return bool(torch.allclose(parameter.detach().float(), copy.detach().float(), rtol=1e-2, atol=1e-3))


def unwrap(module: nn.Module) -> nn.Module:
    """The script's own model inside of a data-parallel or compiled wrapper."""
    while type(module).__name__ in ("DistributedDataParallel", "DataParallel", "OptimizedModule"):
        inner = module._modules.get("module") or module._modules.get("_orig_mod")
        if inner is None:
            break
        module = inner
    return module


def living_modules() -> list[nn.Module]:
    """All modules of the process."""
    return _living(nn.Module)


def living_optimizers() -> list[torch.optim.Optimizer]:
    """All optimizers of the process."""
    return [o for o in _living(torch.optim.Optimizer) if hasattr(o, "param_groups")]


def _living(kind: type[T]) -> list[T]:
    """All objects of a class and of those derived from it."""
    # type() rather than isinstance: proxies of other libraries answer isinstance with side effects
    return [o for o in gc.get_objects() if issubclass(type(o), kind)]


def script_name(target: Any) -> str | None:
    """What the script calls an object: a variable in a calling frame, a global of __main__, or an attribute."""
    spaces: list[dict[str, Any]] = []
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame is None:
            break
        if frame.f_globals.get("__name__", "").split(".", 1)[0] not in ("torch", "unvanish", "contextlib"):
            spaces.append(_variables(frame))
        frame = frame.f_back
    if "__main__" in sys.modules:
        spaces.append(vars(sys.modules["__main__"]))
    spaces.reverse()  # the outer name says more: `generator` of the script, not the `net` of its training function
    for space in spaces:
        for name, value in list(space.items()):
            if value is target and not name.startswith("_") and name not in _DULL:
                return name
    for space in spaces:
        for value in list(space.values()):
            name_inside = _attribute_name(value, target)
            if name_inside is not None:
                return name_inside
    return None


def _variables(frame: FrameType) -> dict[str, Any]:
    """The variables that a frame has now.

    Before 3.13 python keeps a snapshot of a function's variables with the frame, once one was asked for: batches and
    losses of that moment would live as long as the function runs. It is emptied, unless the script holds it
    itself (`options = locals()`).
    """
    snapshot = frame.f_locals
    copied = dict(snapshot)
    ours_alone = sys.getrefcount(snapshot) <= 3  # the frame, this variable, getrefcount's own
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED and ours_alone:
        snapshot.clear()
    return copied


def _attribute_name(value: Any, target: Any) -> str | None:
    inside = getattr(value, "__dict__", None) if not isinstance(value, type) else None
    if not isinstance(inside, dict) or type(value).__name__ == "module":
        return None
    for space in (inside, inside.get("_modules")):
        for name, held in list(space.items()) if isinstance(space, dict) else ():
            if held is target and not name.startswith("_"):
                return str(name)
    return None
