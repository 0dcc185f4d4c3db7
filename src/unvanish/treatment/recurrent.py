"""LSTMs that are called as an nn.RNN is: with one state, and giving one state back."""

from __future__ import annotations

from collections import deque
from typing import Any, final

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

_KEPT = "_unvanish_cell"  # on a state that was given back: (its cell state, its version)
_REMEMBERED = 8  # states; more streams than that through one module are rare


@final
class RNNStyleLSTM(nn.LSTM):
    """nn.LSTM with the call of nn.RNN: (input, h0) -> (output, h_n); see CellStates for the cell state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As nn.LSTM."""
        super().__init__(*args, **kwargs)
        self.cells = CellStates()

    def forward(  # type: ignore[override]  # another convention is what it is for
        self,
        input: torch.Tensor | PackedSequence,  # noqa: A002  # torch's own name of it
        hx: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor | PackedSequence, torch.Tensor]:
        """[batch, steps, in] (or as nn.RNN takes it), [layers, batch, hidden] -> output, [layers, batch, hidden]."""
        state = None if hx is None else (hx, self.cells.recall(hx))
        output, (hidden, cell) = super().forward(input, state)
        self.cells.keep(hidden, cell)
        return output, hidden


@final
class RNNCellStyleLSTM(nn.LSTMCell):
    """nn.LSTMCell with the call of nn.RNNCell: (input, h) -> h; see CellStates for the cell state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As nn.LSTMCell."""
        super().__init__(*args, **kwargs)
        self.cells = CellStates()

    def forward(  # type: ignore[override]  # another convention is what it is for
        self,
        input: torch.Tensor,  # noqa: A002  # torch's own name of it
        hx: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[batch, in], [batch, hidden] -> [batch, hidden]."""
        state = None if hx is None else (hx, self.cells.recall(hx))
        hidden, cell = super().forward(input, state)
        self.cells.keep(hidden, cell)
        return hidden


@final
class CellStates:
    """The cell state that belongs to a hidden state which the script hands back, one step or one chunk later.

    The very tensor that was given back brings its cell state along, with its gradient; a detached or copied one is
    known by its memory or its values, and gets the cell state without gradient. A state that was changed (masked,
    set to zero) or comes from elsewhere starts with a cell state of zero, as a fresh sequence does.
    """

    def __init__(self) -> None:
        """No state was given back yet."""
        self._known: deque[tuple[torch.Tensor, int, torch.Tensor]] = deque(maxlen=_REMEMBERED)

    def keep(self, hidden: torch.Tensor, cell: torch.Tensor) -> None:
        """Remember the cell state of a hidden state."""
        setattr(hidden, _KEPT, (cell, _version(hidden)))
        self._known.append((hidden.detach(), _version(hidden), cell.detach()))

    def recall(self, hidden: torch.Tensor) -> torch.Tensor:
        """The cell state that belongs to this hidden state, else zeros."""
        kept = getattr(hidden, _KEPT, None)
        if kept is not None and kept[1] == _version(hidden):
            attached: torch.Tensor = kept[0]
            return attached
        unchanged = [(h, c) for h, version, c in self._known if _version(h) == version and _alike(h, hidden)]
        for known, cell in reversed(unchanged):
            if known.data_ptr() == hidden.data_ptr() or torch.equal(known, hidden):
                return cell
        return torch.zeros_like(hidden)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles begin with no state: another process, another sequence."""
        return {}

    def __setstate__(self, _state: dict[str, Any]) -> None:
        """Begin anew."""
        self._known = deque(maxlen=_REMEMBERED)


def _version(x: torch.Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
