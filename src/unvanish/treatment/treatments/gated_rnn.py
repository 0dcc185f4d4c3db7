"""Gated recurrent cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import nn

from unvanish.errors import SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.treatment import Safety
from unvanish.treatment import draw
from unvanish.treatment.anatomy import within
from unvanish.treatment.kinds import RECURRENT, plain_type
from unvanish.treatment.parameters import Choice, Number, Spec
from unvanish.treatment.recurrent import RNNCellStyleLSTM, RNNStyleLSTM
from unvanish.treatment.treatment import Operation, Treatment

Recurrent = nn.RNNBase | nn.RNNCellBase
_GATED = (nn.GRU, nn.LSTM, nn.GRUCell, nn.LSTMCell)


@final
class GatedRnn(Treatment):
    """Put a GRU or an LSTM in the place of every nn.RNN (nn.RNNCell), and open its forget gates.

    Sizes, layers, directions, dropout and the way it is called stay; an LSTM hands its cell state on unseen.
    Weights are drawn as torch draws them, uniform in +-1 / sqrt(hidden), the recurrent ones orthogonal, gate by
    gate. A GRU or LSTM that is there already keeps its weights and gets the gate biases alone: those of an LSTM's
    forget gates, or a GRU's update gates, which do the same, add up to `forget_bias`.
    Why: through a plain RNN the signal is multiplied by W and tanh' at every step; a gate hands the
    state on by a sum, and with a bias of 1 it begins open: sigmoid(1) = .73 of the signal passes at each step.
    When it is wrong: on a trained net, whose weights it replaces; where a few steps are all that matters. With
    cell lstm where the script changes the state between the steps (masks): the cell state starts anew there.
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000; Cho et al. 2014; Jozefowicz et al. 2015 (bias of 1).
    """

    name: ClassVar[TreatmentName] = "gated_rnn"
    safety: ClassVar[Safety] = "safe"
    parameters: ClassVar[Mapping[str, Spec]] = {
        "cell": Choice(options=("gru", "lstm"), default="gru"),
        "forget_bias": Number(low=-20.0, high=20.0, default=1.0),
    }

    def operate(self, operation: Operation) -> None:
        """Replace the plain ones, and set the biases of the others."""
        cell, bias = operation.settings.word("cell"), operation.settings.number("forget_bias")
        changed = False
        for path, old in _recurrent(operation):
            if plain_type(old) in (nn.RNN, nn.RNNCell):
                new = _gated(old, cell)
                _draw(new, draw.generator_for(operation.seed, path))
                for parameter, value in _open_gates(new, bias):
                    with torch.no_grad():
                        parameter.copy_(value)
                if old is operation.root:
                    operation.surgery.become(new)
                else:
                    operation.surgery.replace(old, new)
                changed = True
            elif isinstance(old, _GATED):
                for parameter, value in _open_gates(old, bias):
                    if parameter.requires_grad:
                        operation.surgery.write(parameter, value)
                        changed = True
        if not changed:
            raise SurgeryError(
                f"the recurrent modules in {operation.target!r} have no bias that could open a gate",
                "build them with bias=True, or choose another treatment",
            )


def _recurrent(operation: Operation) -> list[tuple[str, Recurrent]]:
    modules = operation.root.named_modules()
    found = [
        (p, m)
        for p, m in modules
        if isinstance(m, RECURRENT)
        and within(p, operation.target)
        and (plain_type(m) in (nn.RNN, nn.RNNCell) or isinstance(m, _GATED))
    ]
    if not found:
        raise SurgeryError(
            f"no nn.RNN, nn.GRU or nn.LSTM, and no cell of these, is in {operation.target!r}",
            "write a recurrent step that is made by hand as nn.RNNCell or nn.GRUCell",
        )
    return found


def _gated(old: Recurrent, cell: str) -> Recurrent:
    """A gated module of the same sizes, called the same way."""
    if isinstance(old, nn.RNNCellBase):
        step = nn.GRUCell if cell == "gru" else RNNCellStyleLSTM
        return step(old.input_size, old.hidden_size, bias=old.bias)
    whole = nn.GRU if cell == "gru" else RNNStyleLSTM
    return whole(
        old.input_size,
        old.hidden_size,
        num_layers=old.num_layers,
        bias=old.bias,
        batch_first=old.batch_first,
        dropout=old.dropout,
        bidirectional=old.bidirectional,
    )


def _draw(module: Recurrent, generator: torch.Generator) -> None:
    """Uniform as torch's own, recurrent weights orthogonal per gate ([gates * hidden, hidden])."""
    bound, size = 1.0 / math.sqrt(module.hidden_size), module.hidden_size
    for name, parameter in module.named_parameters():
        value = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
        if name.startswith("weight_hh"):
            blocks = [torch.empty(size, size) for _ in range(parameter.shape[0] // size)]
            value = torch.cat([nn.init.orthogonal_(b, generator=generator) for b in blocks])
        with torch.no_grad():
            parameter.copy_(value)


def _open_gates(module: Recurrent, bias: float) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """New values of the recurrent biases: input and recurrent bias of the second gate add up to `bias`.

    The second gate is an LSTM's forget gate (i, f, g, o) and a GRU's update gate (r, z, n).
    """
    gate = slice(module.hidden_size, 2 * module.hidden_size)
    written = []
    for name, parameter in module.named_parameters():
        if name.startswith("bias_hh"):
            value = parameter.detach().clone()
            value[gate] = bias - module.get_parameter(name.replace("_hh", "_ih")).detach()[gate]
            written.append((parameter, value))
    return written
