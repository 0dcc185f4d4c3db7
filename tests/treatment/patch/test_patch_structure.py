"""Depth, recurrent cells, outputs, the optimizer's share, clipping: what the patched script builds and does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from patching import of, patch_text, text_of
from test_patch_choices import NET, PLAIN, SGD, TRAIN
from torch import nn

from unvanish.treatment.patch.rehearsal import losses_patched, losses_treated, record_script
from unvanish.treatment.recipe import fingerprint


def _built(folder: Path, text: str) -> nn.Module:
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(text)
    return record_script(folder / "script.py", folder).roots[0].model


def _linears(model: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]


ELEVEN = "model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *body, nn.Linear(6, 2))\n"
DEPTHS = {
    "a literal": ("body = [m for _ in range(9) for m in (nn.Linear(6, 6), nn.Tanh())]\n" + ELEVEN, "range(2)"),
    "a constant": ("DEPTH = 9\nbody = []\nfor _ in range(DEPTH):\n    body += [nn.Linear(6, 6), nn.Tanh()]\n" + ELEVEN, "DEPTH = 2"),
    "a constant that is used twice": (
        "DEPTH = 9\nbody = []\nfor _ in range(DEPTH):\n    body += [nn.Linear(6, 6), nn.Tanh()]\nprint(DEPTH)\n" + ELEVEN,
        "range(DEPTH - 7)",
    ),
    "a default": (
        "def make(depth=10, width=6):\n    body = []\n    for _ in range(depth - 1):\n        body.append(nn.Linear(width, width))\n"
        "        body.append(nn.Tanh())\n    return body\nbody = make()\n" + ELEVEN, "depth=3",
    ),
    "an argument": (
        "def make(depth):\n    return [m for _ in range(depth) for m in [nn.Linear(6, 6), nn.Tanh()]]\nbody = make(9)\n" + ELEVEN,
        "make(2)",
    ),
    "a list": (
        "model = nn.Sequential(\n    nn.Linear(4, 6),\n    nn.Tanh(),\n" + "    nn.Linear(6, 6),  # hidden\n    nn.Tanh(),\n" * 4
        + "    nn.Linear(6, 2),\n)\n", "    nn.Tanh(),\n    nn.Linear(6, 2),\n)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEPTHS)
def test_the_depth_is_reduced_where_it_is_written(name: str, tmp_path: Path) -> None:
    body, wanted = DEPTHS[name]
    patch = patch_text(tmp_path, PLAIN + body + SGD + TRAIN, of("simplify", layers=4))
    new = text_of(patch)
    assert wanted in new
    assert _linears(_built(tmp_path / "new", new)) == [(4, 6), (6, 6), (6, 6), (6, 2)]
    assert any("data order" in note for note in patch.notes)


RNN = (
    PLAIN + "class Net(nn.Module):\n    def __init__(self, n=5):\n        super().__init__()\n"
    "        self.rnn = nn.RNN(4, n, batch_first=True, nonlinearity='relu')\n        self.out = nn.Linear(n, 2)\n"
    "    def forward(self, x):\n        y, h = self.rnn(x[:, None])\n        return self.out(h[-1])\nmodel = Net()\n" + SGD + TRAIN
)  # fmt: skip


@pytest.mark.parametrize(("cell", "kind"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_a_plain_recurrent_layer_becomes_a_gated_one(
    cell: str, kind: type[nn.RNNBase], tmp_path: Path
) -> None:
    patch = patch_text(tmp_path, RNN, of("gated_rnn", cell=cell, forget_bias=2.0))
    new = text_of(patch)
    assert "nonlinearity" not in new
    assert patch.notes
    torch.manual_seed(0)
    rnn = _built(tmp_path / "new", new).rnn
    assert type(rnn) is kind
    total = (rnn.bias_ih_l0 + rnn.bias_hh_l0)[5:10].detach()
    assert total.tolist() == pytest.approx([2.0] * 5, abs=0.02)  # one step of training lies in between
    block = rnn.weight_hh_l0[:5].detach()
    assert torch.allclose(block @ block.T, torch.eye(5), atol=0.1)


def test_the_gates_of_a_layer_that_has_some_are_opened_exactly_as_in_the_recipe(tmp_path: Path) -> None:
    text = (
        RNN.replace("nn.RNN", "nn.LSTM").replace(", nonlinearity='relu'", "").replace("y, h =", "y, (h, _) =")
    )
    plan = of("gated_rnn", forget_bias=1.5)
    patch = patch_text(tmp_path, text, plan)
    script = tmp_path / "script.py"
    mark = fingerprint(record_script(script, tmp_path).roots[0].model)
    assert losses_patched(script, tmp_path, patch.files, steps=3) == losses_treated(
        script, plan, mark, steps=3
    )


OUTPUTS = {
    "a module goes": (NET.replace("nn.Linear(4, 2))", "nn.Linear(4, 2), nn.ReLU())"), "identity", "nn.Identity())"),
    "a module comes": (NET, "sigmoid", "nn.Linear(4, 2), nn.Sigmoid())"),
    "a star": ("parts = [nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)]\nmodel = nn.Sequential(*parts)\n", "log_softmax", "*parts, nn.LogSoftmax("),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_output_is_another(name: str, tmp_path: Path) -> None:
    body, kind, wanted = OUTPUTS[name]
    plan = of("output", kind=kind)
    patch = patch_text(tmp_path, PLAIN + body + SGD + TRAIN, plan)
    assert wanted in text_of(patch)
    script = tmp_path / "script.py"
    mark = fingerprint(record_script(script, tmp_path).roots[0].model)
    assert losses_patched(script, tmp_path, patch.files, steps=3) == losses_treated(
        script, plan, mark, steps=3
    )


def test_a_called_output_goes_and_comes(tmp_path: Path) -> None:
    net = (
        PLAIN + "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)\n"
        "    def forward(self, x):\n        x = torch.relu(self.a(x))\n        return {}\nmodel = Net()\n" + SGD + TRAIN
    )  # fmt: skip
    squashed = net.format("torch.softmax(self.b(x), 1)")
    assert "return self.b(x)\n" in text_of(patch_text(tmp_path, squashed, of("output", kind="identity")))
    assert "return torch.log_softmax(self.b(x), 1)\n" in text_of(
        patch_text(tmp_path, squashed, of("output", kind="log_softmax"))
    )
    raw = net.format("self.b(x)")
    assert "return torch.sigmoid(self.b(x))\n" in text_of(
        patch_text(tmp_path, raw, of("output", kind="sigmoid"))
    )


def test_the_optimizer_gets_the_whole_model(tmp_path: Path) -> None:
    text = PLAIN + NET + "opt = torch.optim.SGD(model[4].parameters(), lr=0.1)\n" + TRAIN
    assert "SGD(model.parameters(), lr=0.1)" in text_of(patch_text(tmp_path, text, of("reconnect")))
    frozen = PLAIN + NET + "model[0].requires_grad_(False)\n" + SGD + TRAIN
    patch = patch_text(tmp_path, frozen, of("reconnect"))
    assert patch.why_not is not None and "frozen" in patch.why_not
    assert "0.weight.requires_grad_(True)" in patch.snippet


SCALED = TRAIN.replace(
    "    loss.backward()\n    opt.step()",
    "    scaler.scale(loss).backward()\n    {}scaler.step(opt)\n    scaler.update()",
)


def test_gradients_are_unscaled_before_they_are_clipped(tmp_path: Path) -> None:
    head = PLAIN + NET + SGD + "scaler = torch.amp.GradScaler('cpu')\n"
    clip = of("clip", norm=0.5)
    clipped = "    scaler.unscale_(opt)\n    nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n    scaler.step(opt)\n"
    assert clipped in text_of(patch_text(tmp_path, head + SCALED.format(""), clip))
    again = text_of(patch_text(tmp_path, head + SCALED.format("scaler.unscale_(opt)\n    "), clip))
    assert clipped in again and again.count("unscale_") == 1


def test_clipping_by_value_and_where_the_model_is_an_attribute(tmp_path: Path) -> None:
    text = PLAIN + (
        "class Trainer:\n    def __init__(self, net):\n        self.net = net\n        self.opt = torch.optim.SGD(net.parameters(), 0.1)\n"
        "    def step(self, x):\n        self.net(x).sum().backward()\n        if True: self.opt.step()\n"
        + NET + "trainer = Trainer(model)\nfor _ in range(3):\n    trainer.step(torch.randn(8, 4))\n"
    )  # fmt: skip
    new = text_of(patch_text(tmp_path, text, of("clip", value=0.1)))
    assert "if True: nn.utils.clip_grad_value_(self.net.parameters(), 0.1); self.opt.step()" in new


def test_batch_norm_behind_steps_takes_the_last_axis(tmp_path: Path) -> None:
    text = PLAIN + NET + SGD + TRAIN.replace("model(x)", "model(x[:, None].expand(8, 3, 4)).mean(1)")
    plan = of("batchnorm")
    patch = patch_text(tmp_path, text, plan)
    assert "class FeatureBatchNorm(nn.BatchNorm1d)" in text_of(patch)
    script = tmp_path / "script.py"
    mark = fingerprint(record_script(script, tmp_path).roots[0].model)
    treated = losses_treated(script, plan, mark, steps=3)
    assert losses_patched(script, tmp_path, patch.files, steps=3) == pytest.approx(treated, rel=1e-6)


TWO = (
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)\n    def forward(self, x):\n{}model = Net()\n"
)
DOORS = {
    "a sequential": (NET, "nn.Sequential(Standardise(4), nn.Linear(4, 4)"),
    "an element to a line": (
        "model = nn.Sequential(\n    nn.Linear(4, 4),\n    nn.Tanh(),\n    nn.Linear(4, 2),\n)\n",
        "    Standardise(4),\n    nn.Linear(4, 4),\n",
    ),
    "an attribute": (
        TWO.format("        return self.b(torch.relu(self.a(x)))\n"),
        "self.b(torch.relu(self.a(self.a_standard(x))))",
    ),
    "a model that uses its data twice": (
        TWO.format('        """Twice."""\n        return self.b(torch.relu(self.a(x)) * x)\n'),
        '        """Twice."""\n        x = self.standardise(x)\n',
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_the_data_is_standardised_as_in_the_recipe(name: str, tmp_path: Path) -> None:
    body, wanted = DOORS[name]
    plan = of("inputs")
    text = PLAIN + body + SGD + TRAIN.replace("torch.randn(8, 4)", "torch.randn(8, 4) * 9 + 30")
    patch = patch_text(tmp_path, text.replace("> 0", "> 30"), plan)
    assert wanted in text_of(patch)
    script = tmp_path / "script.py"
    mark = fingerprint(record_script(script, tmp_path).roots[0].model)
    treated = losses_treated(script, plan, mark, steps=3)
    assert losses_patched(script, tmp_path, patch.files, steps=3) == treated


def test_other_norms_stand_where_the_old_ones_are_built(tmp_path: Path) -> None:
    text = PLAIN + (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.inner = nn.Linear(4, 6)\n"
        "        self.norm = nn.GroupNorm(num_groups=6, num_channels=6)\n"
        "        self.out = nn.Linear(6, 2)\n"
        "    def forward(self, x):\n"
        "        return self.out(torch.tanh(self.norm(self.inner(x))))\n"
        "model = Net()\n" + SGD + TRAIN
    )
    made = text_of(patch_text(tmp_path, text, of("layernorm", at="norms")))
    assert "self.norm = nn.GroupNorm(1, 6)\n" in made
    made = text_of(patch_text(tmp_path, text, of("batchnorm", at="norms")))
    assert "self.norm = nn.BatchNorm1d(6)\n" in made


def test_a_norm_of_the_scripts_own_is_told_and_not_written(tmp_path: Path) -> None:
    text = PLAIN + (
        "class OwnNorm(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return (x - x.mean(0)) / x.std(0)\n"
        "model = nn.Sequential(nn.Linear(4, 6), OwnNorm(), nn.Tanh(), nn.Linear(6, 2))\n" + SGD + TRAIN
    )
    refused = patch_text(tmp_path, text, of("layernorm", at="norms"))
    assert refused.why_not is not None and "torch has no norm for what 1 is called with" in refused.why_not
