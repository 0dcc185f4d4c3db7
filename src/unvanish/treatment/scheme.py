"""The rule of an init scheme: from fans and gain to how a weight or bias is drawn."""

from __future__ import annotations

import math

import torch

from unvanish.errors import SurgeryError
from unvanish.treatment import activations
from unvanish.treatment.draw import Draw, orthogonal_gain
from unvanish.treatment.parameters import Settings

_ORTHOGONAL = ("orthogonal", "lsuv", "critical_centred")
_FORGET = 1  # i, f, g, o: the second of an LSTM's gates


class Scheme:
    """The settings of an init prescription, as a rule from fans and gain to a draw."""

    def __init__(self, settings: Settings) -> None:
        """Read the settings.

        Raises:
            SurgeryError: the critical scheme without its gain.
        """
        self.name = settings.word("scheme")
        self.distribution = settings.word("distribution")
        self.asked = settings.optional("gain")
        self.bias_std = settings.number("bias_std")
        self.offset = settings.optional("offset")
        self._keeps_biases = settings.word("bias") == "keep"
        if self.name == "critical" and self.asked is None:
            raise SurgeryError(
                "the critical init needs its gain",
                'add it ("gain": sqrt(sw2) of the mean field, as theory gives it)',
            )

    def weight(
        self, shape: torch.Size, inward: int, outward: int, gain: float, pieces: int = 1
    ) -> tuple[Draw, float]:
        """How a weight of these fans is drawn, and sqrt(fan_in) times its deviation."""
        if self.name == "xavier":
            gain *= (2.0 * inward / (inward + outward)) ** 0.5
        if self.name in _ORTHOGONAL or self.distribution == "orthogonal":
            size = orthogonal_gain(shape, inward, gain, pieces)
            return Draw(kind="orthogonal", size=size, pieces=pieces), gain
        # the same sums as torch's own kaiming and xavier, so that those draw the same
        if self.name == "xavier":
            deviation = (self.asked or 1.0) * math.sqrt(2.0 / float(inward + outward))
        else:
            deviation = gain / math.sqrt(inward)
        if self.distribution == "uniform":
            return Draw(kind="uniform", size=math.sqrt(3.0) * deviation, pieces=pieces), gain
        return Draw(kind="normal", size=deviation, pieces=pieces), gain

    def bias(self, forget: bool = False) -> Draw | None:
        """How a bias is drawn; None leaves it. `forget`: an LSTM's, whose forget gate is left."""
        if self._keeps_biases and not self.bias_std:
            return None
        pieces, kept = (4, (_FORGET,)) if forget else (1, ())
        if self.bias_std:
            return Draw(kind="normal", size=self.bias_std, pieces=pieces, kept=kept)
        return Draw(kind="constant", size=0.0, pieces=pieces, kept=kept)

    def gain(self, path: str, activation: str | None, slope: float = activations.LEAKY_SLOPE) -> float:
        """The gain in front of this activation (None: not known).

        Raises:
            SurgeryError: He's argument does not hold here, or the activation is not known.
        """
        if self.asked is not None:
            return self.asked
        if self.name != "he":
            return 1.0
        if activation is None:
            raise SurgeryError(
                f"which activation follows {path} is not known, and He's gain depends on it",
                'give the gain in the prescription ("gain": 1.414 for ReLU)',
            )
        return activations.rectifier_gain(activation, slope)
