"""Treating tensors that no module holds: their values, and nothing else, since how they are wired is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import Candidate
from unvanish.treatment.catalogue import sized
from unvanish.treatment.draw import Draw, init_generator
from unvanish.treatment.recipe import fingerprint_of
from unvanish.treatment.registry import TREATMENTS
from unvanish.treatment.scheme import Scheme

TREATED = ("init", "learning_rate")
_SCHEMES = ("lecun", "orthogonal", "xavier")
_RECTIFIED = 1.414  # He's gain, sqrt(2)
_MEND = "put the layers into an nn.Module, and unvanish can do more"


def mark_of(shapes: Iterable[Sequence[int]]) -> str:
    """The fingerprint of such tensors: their names are the script's variables, so that the shapes have to do."""
    return fingerprint_of(("", shape) for shape in shapes)


def loose_candidates() -> tuple[Candidate, ...]:
    """Sizes of the weights. What follows them is not known, so that He's stands beside LeCun's."""
    return tuple(sized(gain) for gain in (_RECTIFIED, 1.0, 0.3, 3.0, 0.1))


def draw_loose(tensors: Sequence[torch.Tensor], prescriptions: Iterable[Prescription], seed: int) -> None:
    """Give the tensors new values in place: matrices and kernels drawn, random vectors (biases) set to zero.

    Raises:
        SurgeryError: a treatment that is of modules, or a scheme that needs to know what follows.
    """
    for prescription in prescriptions:
        _, settings = TREATMENTS.read(prescription)
        if prescription.treatment != "init" or settings.word("scheme") not in _SCHEMES:
            what = " ".join([prescription.treatment, *map(str, prescription.parameters.values())])
            raise SurgeryError(
                f"the weights are tensors that no module holds, and {what} is for modules", _MEND
            )
        generator, scheme = init_generator(seed), Scheme(settings)
        turned = _out_first(tensors)
        with torch.no_grad():
            for tensor in tensors:
                if tensor.dim() > 1:
                    tensor.copy_(_drawn(tensor.shape, scheme, turned).values(tensor, generator))
                elif tensor.dim() == 1 and tensor.numel() > 1 and bool((tensor != tensor[0]).any()):
                    tensor.zero_()


def _drawn(shape: torch.Size, scheme: Scheme, turned: bool | None) -> Draw:
    """[out, in, *kernel] for kernels; of matrices the side that is the input, the mean of both where not known."""
    if len(shape) > 2:
        inward, outward = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
    elif turned is None:
        inward = outward = max(1, sum(shape) // 2)
    else:
        inward, outward = shape[::-1] if turned else shape
    return scheme.weight(shape, inward, outward, scheme.gain("", None))[0]


def _out_first(tensors: Sequence[torch.Tensor]) -> bool | None:
    """Whether matrices are [out, in], as F.linear takes them, and not [in, out]; None where their chain fits both."""
    shapes = [t.shape for t in tensors if t.dim() == 2]
    pairs = list(pairwise(shapes))
    forward = sum(a[1] == b[0] for a, b in pairs)
    backward = sum(a[0] == b[1] for a, b in pairs)
    return None if forward == backward else backward > forward
