"""LSUV: scale every layer to unit output variance, in one forward pass over a real batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.call import Batch
from unvanish.treatment.anatomy import weight_of
from unvanish.treatment.undisturbed import undisturbed


def scale_to_unit_variance(root: nn.Module, layers: Sequence[tuple[str, nn.Module]], batch: Batch) -> None:
    """Divide each layer's weight by the standard deviation of its output, in execution order.

    Mishkin & Matas 2016. One pass is enough: a layer is linear in its weight, so scaling weight and output
    by the same number is exact, and the layers behind it see the scaled signal. The biases are zero.
    Buffers (BN statistics) and attributes are put back; the caller has journalled the weights and guards the
    random state.

    Raises:
        SurgeryError: the model fails on this batch, or a layer's output does not vary.
    """
    faults: list[str] = []
    done: set[int] = set()
    handles = [m.register_forward_hook(_scaler(path, done, faults)) for path, m in layers]
    try:
        with undisturbed(root), torch.no_grad():
            root(*batch.args, **batch.kwargs)
    except Exception as error:  # forward is the user's code
        raise SurgeryError(
            f"the model fails on the batch: {error}", "hand in a batch like the script's"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if faults:
        raise SurgeryError(
            f"the output of {faults[0]} does not vary over the batch", "use a scheme without data"
        )


def _scaler(
    path: str, done: set[int], faults: list[str]
) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor | None]:
    def scale(module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        weight, bias = weight_of(module), module.bias
        if id(weight) in done:  # called again, or tied
            return None
        done.add(id(weight))
        centre = bias if isinstance(bias, torch.Tensor) else torch.zeros(())
        if centre.dim() and weight.dim() > 2:
            centre = centre.reshape([-1] + [1] * (weight.dim() - 2))
        linear = output - centre.to(output)
        deviation = float(linear.float().std())
        if not 1e-12 < deviation < float("inf"):
            faults.append(path)
            return None
        weight.div_(deviation)
        return linear / deviation + centre.to(output)

    return scale
