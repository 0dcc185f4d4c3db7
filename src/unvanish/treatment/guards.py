"""Roots, logarithms, quotients and softmaxes of one model's forward, kept where they have a value and a slope."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from unvanish.treatment.dressing import Coat

NEAR = 1e-6  # of zero: what is added under a root or a logarithm; its slope is then 500, or 1e6
LEAST = 1e-3  # what is divided by is at least so large: the root of the same
ROOM = 2.0  # decades of e that are left below an overflow of exp
Call = Callable[..., Any]
Guard = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded(Coat):
    """The forward of a module with its functions guarded, and with probabilities that are neither 0 nor 1."""

    rank: ClassVar[int] = 1

    def put_on(self, base: type[nn.Module]) -> dict[str, Any]:
        """A forward around that of `base`."""
        plain = base.forward

        @functools.wraps(plain)
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            with Guards() as guards:
                result = plain(self, *args, **kwargs)
            return guards.inside(result)

        return {"forward": forward}


@final
class Guards(TorchFunctionMode):
    """While this lasts, torch's functions of this thread stay away from where they have no finite slope.

    What lies farther from there than NEAR (LEAST for a divisor) is as it would be without, up to NEAR. Functions that
    write in place are left alone. Source: IEEE 754 (0 / 0, 0 times infinity); Goodfellow et al. 2016, 4.1.
    """

    def __init__(self) -> None:
        """Nothing was called yet."""
        super().__init__()
        self._last: Any = None  # what the last sigmoid or softmax gave

    def __torch_function__(
        self, func: Call, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call what was called, with guarded arguments."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        guard = _GUARDS.get(name)
        real = guard is not None and all(type(a) in _REAL or not isinstance(a, torch.Tensor) for a in args)
        result = guard(func, args, given) if guard is not None and real else func(*args, **given)
        if name in _PROBABILITIES:
            self._last = result
        return result

    def inside(self, result: Any) -> Any:
        """The model's result; probabilities a little away from 0 and 1, whose logarithms a loss may take."""
        if isinstance(result, torch.Tensor) and result is self._last and result.is_floating_point():
            return result.clamp(NEAR, 1 - NEAR)
        return result


_REAL = (torch.Tensor, nn.Parameter)
_PROBABILITIES = frozenset(("sigmoid", "softmax"))


def _is_float(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _first(change: Callable[[torch.Tensor], torch.Tensor]) -> Guard:
    """Of the first argument."""

    def guard(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not args or not _is_float(args[0]):
            return func(*args, **kwargs)
        return func(change(args[0]), *args[1:], **kwargs)

    return guard


def _above_zero(x: torch.Tensor) -> torch.Tensor:
    return x.clamp_min(0) + NEAR


def _off_zero(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < LEAST, torch.full_like(x, LEAST).copysign(x), x)


def _in_the_unit(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-1 + NEAR, 1 - NEAR)


def _below_overflow(x: torch.Tensor) -> torch.Tensor:
    return x.clamp_max(torch.tensor(torch.finfo(x.dtype).max).log().item() - ROOM)


def _divided(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x / y, with the operands in the order of torch.div; the reflected one of 1 / y comes as (y, 1)."""
    place = 0 if getattr(func, "__name__", "") in ("__rtruediv__", "__rdiv__") else 1
    if len(args) <= place or not _is_float(args[place]):
        return func(*args, **kwargs)
    return func(*args[:place], _off_zero(args[place]), *args[place + 1 :], **kwargs)


def _power(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    exponent = args[1] if len(args) > 1 else None
    if not _is_float(args[0]) or not isinstance(exponent, float | int) or exponent >= 1 or exponent == 0:
        return func(*args, **kwargs)
    if isinstance(exponent, int) or float(exponent).is_integer():
        return func(_off_zero(args[0]), *args[1:], **kwargs)
    return func(_above_zero(args[0]), *args[1:], **kwargs)


def _softmax(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A row of which everything is masked out counts as one of which nothing is."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not args or not _is_float(args[0]) or not isinstance(dim, int) or args[0].dim() == 0:
        return func(*args, **kwargs)
    return func(_with_open_rows(args[0], dim), *args[1:], **kwargs)


def _with_open_rows(scores: torch.Tensor, dim: int) -> torch.Tensor:
    closed = torch.isneginf(scores).all(dim, keepdim=True)
    return torch.where(closed, torch.zeros_like(scores), scores)


def _attention(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same for torch's own attention, whose masks are arguments: True is what takes part in this one."""
    mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
    if not isinstance(mask, torch.Tensor):
        return func(*args, **kwargs)
    open_ = mask.dtype == torch.bool
    mask = mask | ~mask.any(-1, keepdim=True) if open_ else _with_open_rows(mask, -1)
    if len(args) > 3:
        return func(*args[:3], mask, *args[4:], **kwargs)
    return func(*args, **{**kwargs, "attn_mask": mask})


def _heads(func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """And for nn.MultiheadAttention: True is what is left out."""
    mask = kwargs.get("key_padding_mask")
    if isinstance(mask, torch.Tensor):
        if mask.dtype == torch.bool:
            mask = mask & ~mask.all(-1, keepdim=True)
        elif mask.is_floating_point():
            mask = _with_open_rows(mask, -1)
        kwargs = {**kwargs, "key_padding_mask": mask}
    return func(*args, **kwargs)


_GUARDS: dict[str, Guard] = {
    **dict.fromkeys(("sqrt", "rsqrt", "log", "log2", "log10"), _first(_above_zero)),
    **dict.fromkeys(("acos", "arccos", "asin", "arcsin", "atanh", "arctanh"), _first(_in_the_unit)),
    **dict.fromkeys(("div", "divide", "true_divide", "__truediv__", "__rtruediv__", "__div__", "__rdiv__"), _divided),
    **dict.fromkeys(("pow", "__pow__"), _power),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "reciprocal": _first(_off_zero),
    "exp": _first(_below_overflow),
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _heads,
}  # fmt: skip
