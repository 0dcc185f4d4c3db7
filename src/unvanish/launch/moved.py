"""Whether a script that updates weights by hand updates those of the treated model, and not a list made before."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probe.by_hand import some, writes

TWICE = 2  # a gradient that could move it has to have come so often before, for an update between them
MOST = 64  # gradients: so long a script may accumulate them
LARGE = 1e-3  # of the largest weight: an update by such a gradient is no rounding error
# these do their work at the values that they begin with, whether anything trains them or not
_FINE_AS_THEY_ARE = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU,
)  # fmt: skip


class Moved:
    """Looks at each parameter of a model whenever its gradient arrives, until it was seen to have changed.

    A script may hold its parameters in a list that it made before the treatment: then what the treatment has put in
    is not trained. Or it pairs them with buffers that it made before: then the last ones are not, where there are
    more than before. Scales and shifts of norms may stay as they are; for all else that is a fault. What the script
    does not update without a treatment either is none.
    """

    def __init__(self) -> None:
        """Nothing is looked at yet."""
        self._looks: list[_Look] = []

    def watch(self, model: nn.Module, before: Iterable[nn.Parameter]) -> None:
        """Begin. `before`: the parameters that it had before the treatment."""
        old = {id(p) for p in before}
        last = len(old)
        fine = {id(p) for m in model.modules() if isinstance(m, _FINE_AS_THEY_ARE) for p in m.parameters()}
        for place, (name, parameter) in enumerate(model.named_parameters()):
            new = id(parameter) not in old
            if parameter.requires_grad and parameter.is_leaf and not (new and id(parameter) in fine):
                self._looks.append(_Look(name, parameter, new=new, meant=new or place >= last))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parameters that the script does not update, though it trains, or tries to."""
        return tuple(look.name for look in self._looks if look.left_out) if self._trains else ()

    @property
    def _trains(self) -> bool:
        return any(look.moved or look.large > TWICE for look in self._looks)

    def end(self) -> None:
        """Look no more; what was seen is kept."""
        for look in self._looks:
            look.end()


class _Look:
    """One parameter."""

    def __init__(self, name: str, parameter: nn.Parameter, *, new: bool, meant: bool) -> None:
        self.name = name
        self.moved = False
        self.large = 0  # gradients that came and that an update would show of
        self._new, self._meant = new, meant
        self._came = 0
        self._before, self._writes = some(parameter), writes(parameter)
        self._handle: Any = parameter.register_hook(partial(self._arrived, parameter))

    @property
    def left_out(self) -> bool:
        """Whether it should have moved. One that is new, and gets no gradient at all, was not asked for one."""
        if self.moved or not self._meant:
            return False
        return self.large > TWICE or (self._new and not self._came)

    def _arrived(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        self._came += 1
        self.moved = writes(parameter) != self._writes or not torch.equal(some(parameter), self._before)
        if self.moved or self._came >= MOST:
            self.end()
        elif self.large <= TWICE:
            found = gradient.detach()
            found = found.coalesce().values() if found.is_sparse else found
            if found.numel() and bool(found.abs().max() > LARGE * parameter.detach().abs().max()):
                self.large += 1

    def end(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
