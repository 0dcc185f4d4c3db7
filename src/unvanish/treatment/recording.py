"""The calls of one real forward pass, as a graph of torch.fx: for models that can't be traced symbolically."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from unvanish.schema.call import Batch
from unvanish.treatment.structures import map_tensors
from unvanish.treatment.tracing import running_site, set_site
from unvanish.treatment.undisturbed import undisturbed


def record(root: nn.Module, batch: Batch, is_leaf: Callable[[nn.Module], bool]) -> fx.Graph | None:
    """Run the model over the batch without gradients and write down its calls; None where it fails.

    Buffers and plain attributes of the modules are put back; the caller guards the random state.
    """
    recorder = _Recorder(root, is_leaf)
    try:
        with undisturbed(root), torch.no_grad(), recorder.hooked(), recorder:
            recorder.data(batch)
            result = root(*batch.args, **batch.kwargs)
            recorder.finish(result)
    except Exception:  # noqa: BLE001  # forward is the user's code
        return None
    return recorder.graph


class _Recorder(TorchFunctionMode):
    """Writes a node for every call of a function of torch and of a leaf module; tensors tell who feeds whom."""

    def __init__(self, root: nn.Module, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self._root = root
        self._is_leaf = is_leaf
        self._paths = {module: path for path, module in root.named_modules()}
        self._makers: dict[int, fx.Node] = {}
        self._held: list[torch.Tensor] = []  # so that no id is given to a second tensor
        self._stack: list[str] = []
        self._sites: list[Any] = []
        self._weights = {id(p): name for name, p in root.named_parameters()}
        self._leaf: nn.Module | None = None

    def data(self, batch: Batch) -> None:
        """Note the tensors that come in."""
        for place, tensor in enumerate(_tensors((batch.args, batch.kwargs))):
            self._make(tensor, self.graph.placeholder(f"data_{place}"))

    def finish(self, result: Any) -> None:
        """Note what comes out."""
        made = [self._makers[id(t)] for t in _tensors(result) if id(t) in self._makers]
        self.graph.output(made[0] if isinstance(result, torch.Tensor) and made else tuple(made))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if self._leaf is not None:
            return func(*args, **named)
        sources = self._sources((args, named))
        result = func(*args, **named)
        if sources and any(True for _ in _tensors(result)):
            name = getattr(func, "__name__", "function")
            plain = name.strip("_") + ("_" if name.endswith("_") and not name.endswith("__") else "")
            options: dict[str, Any] = {"inplace": True} if named.get("inplace") is True else {}
            node = self.graph.create_node("call_method", plain, tuple(sources), options)
            self._note(node, running_site(self._root, self._stack, self._paths), result)
        return result

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Hear of every module call of the model."""
        handles = []
        for module in self._paths:
            if module is not self._root:
                handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
                handles.append(module.register_forward_hook(self._after, with_kwargs=True, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, module: nn.Module, _args: Any, _kwargs: Any) -> None:
        if self._leaf is not None:
            return
        if self._is_leaf(module) or self._is_torchs(module):
            self._leaf = module
            self._sites.append(running_site(self._root, self._stack, self._paths))
        else:
            self._stack.append(self._paths[module])

    def _after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if self._leaf is None:
            self._stack.pop()
            return
        if self._leaf is not module:
            return
        self._leaf = None
        node = self.graph.create_node(
            "call_module", self._paths[module], tuple(self._sources((args, kwargs)))
        )
        self._note(node, self._sites.pop(), result)

    def _note(self, node: fx.Node, site: Any, result: Any) -> None:
        node.meta["nn_module_stack"] = {path: (path, type(self._root)) for path in self._stack}
        set_site(node, site)
        for tensor in _tensors(result):
            self._make(tensor, node)

    def _make(self, tensor: torch.Tensor, node: fx.Node) -> None:
        self._makers[id(tensor)] = node
        self._held.append(tensor)

    def _sources(self, values: Any) -> list[fx.Node]:
        found: list[fx.Node] = []
        for tensor in _tensors(values):
            if id(tensor) not in self._makers and id(tensor) in self._weights:
                self._make(tensor, self.graph.get_attr(self._weights[id(tensor)]))
            if id(tensor) in self._makers:
                found.append(self._makers[id(tensor)])
        return found

    @staticmethod
    def _is_torchs(module: nn.Module) -> bool:
        inside = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        return type(module).__module__.startswith("torch.nn") and not isinstance(module, inside)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    found: list[torch.Tensor] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        found.append(x)
        return x

    if isinstance(values, PackedSequence):
        return iter([values.data])
    map_tensors(values, note)
    return iter(found)
