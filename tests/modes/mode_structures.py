"""Modes of the model: what it is made of, what it gives back, and which of its parameters are trained when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mode_base import FLOAT32, Mode, Setting, Training
from mode_nets import CLASSES, INPUTS, adam, batch, classify, mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from unvanish.schema.run import Run

VOCABULARY, LENGTH = 11, 5


# --- what is trained when -------------------------------------------------------------------------------------


def _unfrozen(*, late_group: bool) -> Callable[[Setting], Training]:
    """A layer is frozen at first and trained from the third step on."""

    def make(s: Setting) -> Training:
        model, count = mlp(s), [0]
        first = list(model[0].parameters())
        for p in first:
            p.requires_grad_(False)
        rest = [p for p in model.parameters() if p.requires_grad]
        opt = torch.optim.SGD(rest if late_group else model.parameters(), lr=0.1)

        def step() -> None:
            count[0] += 1
            if count[0] == 3:
                for p in first:
                    p.requires_grad_(True)
                if late_group:
                    opt.add_param_group({"params": first, "lr": 0.05})
            x, y = batch(s)
            opt.zero_grad()
            s.backward(F.cross_entropy(model(x), y))
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


def _all_trainable(run: Run) -> None:
    (model,) = run.models
    assert all(p.requires_grad and p.optimizer == 0 for p in model.info.parameters), model.info.parameters


class _Grows(nn.Module):
    """Starts with one layer between its ends, and gets a second."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(INPUTS, s.width), nn.Linear(s.width, s.width)])
        self.head = nn.Linear(s.width, CLASSES)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


def _growing(s: Setting) -> Training:
    """A layer that did not exist when watching began is added with its group in the third step."""
    model, count = _Grows(s), [0]
    opt = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        count[0] += 1
        if count[0] == 3:
            layer = nn.Linear(s.width, s.width).to(s.dtype)
            model.layers.append(layer)
            opt.add_param_group({"params": list(layer.parameters())})
        x, y = batch(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()

    return Training(models=[model], optimizers=[opt], step=step)


# --- what comes out ---------------------------------------------------------------------------------------------


@dataclass
class Output:
    """A model's output as libraries of transformers shape it."""

    logits: Tensor
    hidden: Tensor


class _Outputs(nn.Module):
    def __init__(self, s: Setting, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.form = form
        self.body, self.act, self.head = nn.Linear(INPUTS, s.width), nn.Tanh(), nn.Linear(s.width, CLASSES)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Any:
        hidden = self.act(self.body(x))
        return self.form(self.head(hidden), hidden)


def _as_tuple(logits: Tensor, hidden: Tensor) -> Any:
    return logits, hidden


def _as_dict(logits: Tensor, hidden: Tensor) -> Any:
    return {"logits": logits, "hidden": hidden}


def _as_dataclass(logits: Tensor, hidden: Tensor) -> Any:
    return Output(logits=logits, hidden=hidden)


def _outputs(form: Callable[[Tensor, Tensor], Any]) -> Callable[[Setting], Training]:
    def loss(out: Any, y: Tensor) -> Tensor:
        parts = (
            out if isinstance(out, tuple) else out.values() if isinstance(out, dict) else vars(out).values()
        )
        logits, hidden = parts
        return F.cross_entropy(logits, y) + 0.1 * hidden.square().mean()

    return classify(lambda s: _Outputs(s, form), loss=loss)


# --- weights in unusual places ------------------------------------------------------------------------------------


def _words(s: Setting) -> tuple[Tensor, Tensor]:
    return torch.randint(VOCABULARY, (s.rows, LENGTH)), torch.randint(VOCABULARY, (s.rows,))


class _Tied(nn.Module):
    """Embedding and output layer share one tensor."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(VOCABULARY, s.width), nn.Linear(s.width, s.width)
        self.out = nn.Linear(s.width, VOCABULARY, bias=False)
        self.out.weight = self.embed.weight
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.embed(x).mean(1))))


def _sparse(kind: Any, **options: Any) -> Callable[[Setting], Training]:
    """An embedding with sparse gradients and a dense layer behind it, under one optimizer or two."""

    def make(s: Setting) -> Training:
        table = nn.Embedding(VOCABULARY, s.width, sparse=True)
        model = nn.Sequential(table, nn.Flatten(), nn.Linear(LENGTH * s.width, VOCABULARY)).to(s.dtype)
        if kind is torch.optim.SGD:
            opts = [torch.optim.SGD(model.parameters(), lr=0.1)]
        else:
            opts = [kind(table.parameters(), **options), torch.optim.SGD(model[2].parameters(), lr=0.1)]

        def step() -> None:
            x, y = _words(s)
            for opt in opts:
                opt.zero_grad()
            s.backward(F.cross_entropy(model(x), y))
            for opt in opts:
                opt.step()

        return Training(models=[model], optimizers=opts, step=step)

    return make


class _Complex(nn.Module):
    """A complex weight between two real ones: a rotation and a gain per frequency."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(INPUTS, s.width), nn.Linear(s.width, CLASSES)
        self.to(s.dtype)
        parts = torch.randn(s.width // 2 + 1, 2).to(s.dtype)
        self.filter = nn.Parameter(torch.view_as_complex(parts.contiguous()))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.fft.rfft(torch.tanh(self.first(x))) * self.filter
        return self.out(torch.fft.irfft(h, n=self.first.out_features))


def _normed(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[Setting], nn.Module]:
    def net(s: Setting) -> nn.Module:
        w = s.width
        layers = [
            wrap(nn.Linear(INPUTS, w)),
            nn.Tanh(),
            wrap(nn.Linear(w, w)),
            nn.Tanh(),
            nn.Linear(w, CLASSES),
        ]
        return nn.Sequential(*layers).to(s.dtype)

    return net


def _in_place(s: Setting) -> nn.Module:
    w, there = s.width, not s.twin
    return nn.Sequential(
        nn.Linear(INPUTS, w), nn.ReLU(inplace=there), nn.Linear(w, w), nn.LeakyReLU(0.1, inplace=there),
        nn.Linear(w, CLASSES),
    ).to(s.dtype)  # fmt: skip


class _NoParameters(nn.Module):
    """Layers without parameters, some of which return what they were given."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(INPUTS, s.width), nn.Linear(s.width, CLASSES)
        self.nothing, self.flat, self.act = nn.Identity(), nn.Flatten(), nn.GELU()
        self.soft, self.off = nn.Softplus(), nn.Dropout(0.0)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.off(self.soft(self.act(self.flat(self.nothing(self.first(x)))))))


# --- images -------------------------------------------------------------------------------------------------------


class _Conv(nn.Module):
    def __init__(self, s: Setting) -> None:
        super().__init__()
        c = max(4, s.width // 8)
        self.conv1, self.norm = nn.Conv2d(2, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.act, self.conv2 = nn.ReLU(inplace=not s.twin), nn.Conv2d(c, 4, 3)
        self.out = nn.Linear(4 * 16, CLASSES)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.conv2(self.act(self.norm(self.conv1(x))))).flatten(1))


def _images(s: Setting) -> tuple[Tensor, Tensor]:
    return s.randn(s.rows, 2, 6, 6), torch.randint(CLASSES, (s.rows,))


def _channels_last(s: Setting) -> Training:
    def net(s: Setting) -> nn.Module:
        model = _Conv(s)
        return model if s.twin else model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def data(s: Setting) -> tuple[Tensor, Tensor]:
        x, y = _images(s)
        return (x if s.twin else x.contiguous(memory_format=torch.channels_last)), y

    return classify(net, data=data)(s)


# --- sequences ----------------------------------------------------------------------------------------------------


class _Unrolled(nn.Module):
    """A recurrent net written by hand: the same two layers at every step."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        self.w = s.width
        self.enter, self.again = nn.Linear(INPUTS, self.w), nn.Linear(self.w, self.w)
        self.out = nn.Linear(self.w, CLASSES)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.w)
        for t in range(x.shape[1]):
            h = torch.tanh(self.enter(x[:, t]) + self.again(h))
        return self.out(h)


class _Recurrent(nn.Module):
    def __init__(self, s: Setting, kind: Any) -> None:
        super().__init__()
        w = max(4, s.width // 3)  # 4w x w stays small enough to be measured whole
        self.rnn, self.out = kind(INPUTS // 2, w, num_layers=2, batch_first=True), nn.Linear(w, CLASSES)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x[..., : INPUTS // 2])[0][:, -1])


def _sequences(s: Setting) -> tuple[Tensor, Tensor]:
    return s.randn(s.rows, LENGTH, INPUTS), torch.randint(CLASSES, (s.rows,))


class _Encoder(nn.Module):
    def __init__(self, s: Setting) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(INPUTS, 2, 16, dropout=0.0, batch_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(INPUTS, CLASSES)
        self.to(s.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x).mean(1))


def _transformer(s: Setting) -> Training:
    """Between the steps the model is evaluated, where torch takes its fast path through fused kernels."""
    model = _Encoder(s)
    opt = torch.optim.Adam(model.parameters(), lr=0.003)

    def step() -> None:
        x, y = _sequences(s)
        opt.zero_grad()
        s.backward(F.cross_entropy(model(x), y))
        opt.step()
        model.eval()
        with torch.no_grad():
            model(x)
        model.train()

    return Training(models=[model], optimizers=[opt], step=step)


MODES = (
    Mode(name="frozen and later unfrozen", make=_unfrozen(late_group=False), check=_all_trainable),
    Mode(name="unfrozen, with add_param_group", make=_unfrozen(late_group=True), check=_all_trainable),
    Mode(name="a layer added later, with add_param_group", make=_growing, signals=2),
    Mode(name="tuple output", make=_outputs(_as_tuple)),
    Mode(name="dict output", make=_outputs(_as_dict)),
    Mode(name="dataclass output", make=_outputs(_as_dataclass)),
    Mode(name="tied weights", make=classify(_Tied, data=_words)),
    Mode(name="in-place ReLU", make=classify(_in_place), signals=5),
    Mode(name="layers without parameters", make=classify(_NoParameters), signals=4),
    Mode(name="convolution and batch norm", make=classify(_Conv, data=_images), signals=5, tolerance=2 * FLOAT32),
    Mode(name="channels_last", make=_channels_last, signals=5, tolerance=2 * FLOAT32),
    Mode(name="RNN unrolled by hand", make=classify(_Unrolled, data=_sequences), signals=2 * LENGTH + 1),
    Mode(name="nn.RNN", make=classify(lambda s: _Recurrent(s, nn.RNN), data=_sequences), signals=1),
    Mode(name="nn.LSTM", make=classify(lambda s: _Recurrent(s, nn.LSTM), data=_sequences), signals=1),
    Mode(name="nn.GRU", make=classify(lambda s: _Recurrent(s, nn.GRU), data=_sequences), signals=1),
    Mode(name="nn.TransformerEncoder, evaluated in between", make=_transformer, signals=9, update_tolerance=2e-2),
    Mode(name="sparse gradients, SGD", make=_sparse(torch.optim.SGD), signals=2),
    Mode(name="sparse gradients, SparseAdam", make=_sparse(torch.optim.SparseAdam), signals=2),
    Mode(name="complex parameters", make=classify(_Complex), signals=2),
    Mode(name="weight_norm", make=classify(_normed(parametrizations.weight_norm)), signals=5),
    Mode(name="spectral_norm", make=classify(_normed(parametrizations.spectral_norm)), signals=5),
    Mode(name="large tensors, sampled", make=classify(), width=320, rows=48, tolerance=0.12,
         note="a part of every large tensor is looked at; the record says how many elements"),
    Mode(name="large tensors, sampled, Adam", make=classify(optimizer=adam()), width=320, rows=48, tolerance=0.12,
         update_tolerance=0.05),
)  # fmt: skip
