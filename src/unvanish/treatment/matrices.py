"""Bare nn.Parameters that a custom module multiplies with: which side is the input, and which activation follows."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from unvanish.treatment.activations import FUNCTIONS, name_of
from unvanish.treatment.tracing import trace

_PRODUCTS = (operator.matmul, torch.matmul, torch.mm, torch.bmm)
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TURNS = ("t", "transpose", "mT", "T", "swapaxes", "permute")
_PASSES = ("add", "add_", "dropout", "contiguous", "view", "reshape", "squeeze", "unsqueeze", "flatten")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A parameter [..., a, b] used as a matrix. `inward` and `outward` count its inputs and outputs.

    `kernel`: it is a convolution's, [out, in, *kernel]. `activation` is None where what follows is not known.
    """

    inward: int
    outward: int
    activation: str | None
    kernel: bool = False


def bare_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The trainable matrices (2-D or more, no side of 1) that a module holds itself, if it is none of torch's."""
    containers = (nn.ParameterList, nn.ParameterDict)
    if type(module).__module__.startswith("torch.") and not isinstance(module, containers):
        return []
    return [
        (name, p)
        for name, p in module.named_parameters(recurse=False)
        if p.dim() >= 2 and min(p.shape[-2:]) > 1 and p.requires_grad and p.is_floating_point()
    ]


def read_matrices(root: nn.Module) -> dict[str, Matrix] | None:
    """All bare parameters that forward multiplies with, by dotted name; None where it can't be traced."""
    graph = trace(root, lambda _: False)
    if graph is None:
        return None
    sizes = {name: tuple(p.shape) for name, p in root.named_parameters(remove_duplicate=False)}
    found: dict[str, Matrix] = {}
    for node in graph.nodes:
        name = str(node.target)
        if node.op == "get_attr" and len(sizes.get(name, ())) >= 2 and name not in found:
            use = _use_of(node)
            if use is not None and _called(use[0]) in _CONVOLUTIONS:
                out, into, *room = sizes[name]
                found[name] = Matrix(
                    inward=into * math.prod(room), outward=out * math.prod(room), kernel=True,
                    activation=_activation_behind(root, use[0]),
                )  # fmt: skip
            elif use is not None:
                product, flipped = use
                a, b = sizes[name][-2:]
                found[name] = Matrix(
                    inward=b if flipped else a, outward=a if flipped else b,
                    activation=_activation_behind(root, product),
                )  # fmt: skip
    return found


def _use_of(node: fx.Node) -> tuple[fx.Node, bool] | None:
    """The product that the parameter enters, and whether its last side is the input ([out, in], as in Linear)."""
    flipped = False
    while len(node.users) == 1 and _called(next(iter(node.users))) in _TURNS:
        node, flipped = next(iter(node.users)), not flipped
    for user in node.users:
        if user.op != "call_function" and _called(user) not in ("matmul", "mm", "bmm"):
            continue
        if _called(user) in _CONVOLUTIONS and len(user.args) > 1 and user.args[1] is node:
            return user, False
        if user.target is F.linear and len(user.args) > 1 and user.args[1] is node:
            return user, not flipped
        if user.target in _PRODUCTS or _called(user) in ("matmul", "mm", "bmm"):
            behind = len(user.args) > 1 and user.args[1] is node
            return user, flipped if behind else not flipped
    return None


def _called(node: fx.Node) -> str:
    if node.op == "call_function" and node.target is getattr and len(node.args) > 1:
        return str(node.args[1])  # w.T
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _activation_behind(root: nn.Module, node: fx.Node) -> str | None:
    """The activation straight behind a product (a bias may lie between); "identity" where the output is next."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "output":
            return "identity"
        if node.op == "call_module":
            return name_of(root.get_submodule(str(node.target)))
        called = _called(node)
        if called in FUNCTIONS:
            return called.rstrip("_")
        if called not in _PASSES:
            return "identity" if node.target in _PRODUCTS or node.target is F.linear else None
    return None
