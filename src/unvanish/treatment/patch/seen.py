"""What stands behind each layer, from one observed pass: for models that no symbolic trace can read."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from unvanish.treatment import activations
from unvanish.treatment.anatomy import Layer
from unvanish.treatment.kinds import WEIGHTED
from unvanish.treatment.patch.facts import Change, Site
from unvanish.treatment.patch.watch import SHAPES, Call, Watch


class SeenLayers:
    """Answers `layer_of` as an Anatomy does, with the activations that changes of the source alone bring."""

    def __init__(self, watch: Watch, paths: dict[int, str], earlier: Iterable[Change]) -> None:
        """`earlier` are the changes in front of the one that asks."""
        self._paths = paths
        self._by_site: dict[Site, str] = {}
        self._by_path: dict[str, str] = {}
        for change in (c for c in earlier if c.only_here is not None):
            self._by_site.update({call.site: call.name for call in change.functions})
            kind = change.prescription.parameters.get("kind")
            self._by_path.update({swap.path: str(kind) for swap in change.swaps})
        reach = watch.reaches()
        self._layers: dict[int, Layer] = {}
        for index, call in enumerate(watch.calls):
            if call.module is not None and isinstance(call.module, WEIGHTED) and id(call.module) in paths:
                last = not any(reach[b] for b in call.behind)
                self._layers.setdefault(id(call.module), self._layer(watch, index, call.module, last=last))

    def layer_of(self, module: nn.Module) -> Layer | None:
        """The layer that this module is, None where the pass did not run it."""
        return self._layers.get(id(module))

    def _layer(self, watch: Watch, index: int, module: nn.Module, *, last: bool) -> Layer:
        call = _activation_behind(watch, index)
        found = None if call is None else call.module
        return Layer(
            path=self._paths[id(module)],
            module=module,
            activation=found,
            activation_name="identity" if call is None else self._name(call),
            activation_alone=False,
            functional=call is not None and found is None,
            normed=False,
            fed_by="mixed",
            last=last,
            calls=1,
        )

    def _name(self, call: Call) -> str:
        if call.site is not None and call.module is None:
            return self._by_site.get(call.site, call.name)
        path = self._paths.get(id(call.module), "")
        return self._by_path.get(
            path, activations.name_of(call.module) or call.name if call.module else call.name
        )


def _activation_behind(watch: Watch, index: int) -> Call | None:
    """The activation straight behind a call; norms and changes of the shape may lie between."""
    call = watch.calls[index]
    while len(call.behind) == 1:
        call = watch.calls[call.behind[0]]
        if call.activation:
            return call
        if call.name not in ("norm", "transparent") and call.name not in SHAPES:
            return None
    return None
