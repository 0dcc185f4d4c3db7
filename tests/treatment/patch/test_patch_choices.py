"""Where a change is written: at the call, where a name is chosen, at a default, in an import."""

from __future__ import annotations

from pathlib import Path

import pytest
from patching import RELU_HE, of, patch_text, text_of

RELU = of("activation", kind="relu")
RATE = of("learning_rate", factor=0.5)
TRAIN = """
for step in range(3):
    x = torch.randn(8, 4)
    loss = torch.nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
    opt.zero_grad()
    loss.backward()
    opt.step()
"""
PLAIN = "import torch\nfrom torch import nn\n"
SGD = "opt = torch.optim.SGD(model.parameters(), lr=0.1)\n"
NET = "model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))\n"


def _class(init: str, forward: str, call: str = "Net()", head: str = PLAIN, before: str = "") -> str:
    lines = "".join(f"        {line}\n" for line in init.splitlines())
    body = "".join(f"        {line}\n" for line in forward.splitlines())
    return (
        f"{head}{before}class Net(nn.Module):\n    def __init__(self{{args}}):\n        super().__init__()\n{lines}"
        f"    def forward(self, x):\n{body}model = {call}\n{SGD}{TRAIN}"
    )


LAYERS = "self.a = nn.Linear(4, 4)\nself.b = nn.Linear(4, 4)\nself.c = nn.Linear(4, 2)"
FORWARD = "x = self.act(self.a(x))\nx = self.act(self.b(x))\nreturn self.c(x)"
SWAPS = {
    "a class in a variable": (
        PLAIN + "act = nn.Tanh\n" + NET.replace("nn.Sigmoid", "act") + SGD + TRAIN,
        ["act = nn.ReLU\n", "act(), nn.Linear"],
    ),
    "a variable that serves others, too": (
        PLAIN + "act = nn.Tanh\n" + NET.replace("nn.Sigmoid", "act") + "print(act)\n" + SGD + TRAIN,
        ["act = nn.Tanh\n", "nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()"],
    ),
    "a default": (
        _class(LAYERS + "\nself.act = act()", FORWARD).replace("{args}", ", act=nn.Sigmoid"),
        ["act=nn.ReLU", "self.act = act()"],
    ),
    "an argument": (
        _class(LAYERS + "\nself.act = act()", FORWARD, "Net(nn.Sigmoid)").replace("{args}", ", act"),
        ["model = Net(nn.ReLU)", "self.act = act()"],
    ),
    "a keyword": (
        _class(LAYERS + "\nself.act = kind()", FORWARD, "Net(kind=nn.ELU)").replace("{args}", ", *, kind=None"),
        ["model = Net(kind=nn.ReLU)"],
    ),
    "a word for a table": (
        _class(LAYERS + "\nself.act = ACTS[act]()", FORWARD,
               before='ACTS = {"s": nn.Sigmoid, "r": nn.ReLU}\n').replace("{args}", ", act='s'"),
        ["act='r'", '{"s": nn.Sigmoid, "r": nn.ReLU}'],
    ),
    "a word for a table without the new one": (
        _class(LAYERS + "\nself.act = ACTS[act]()", FORWARD,
               before='ACTS = {"s": nn.Sigmoid, "t": nn.Tanh}\n').replace("{args}", ", act='s'"),
        ["self.act = nn.ReLU()"],
    ),
    "a word for getattr": (
        _class(LAYERS + "\nself.act = getattr(nn, name)()", FORWARD, "Net('Sigmoid')").replace("{args}", ", name"),
        ["Net('ReLU')"],
    ),
    "a conditional": (
        PLAIN + "import sys\nact = nn.Tanh if '--x' in sys.argv else nn.Sigmoid\n" + NET.replace("nn.Sigmoid", "act")
        + SGD + TRAIN,
        ["act = nn.Tanh if '--x' in sys.argv else nn.ReLU\n"],
    ),
    "a function on self": (
        _class(LAYERS + "\nself.act = torch.sigmoid", FORWARD).replace("{args}", ""),
        ["self.act = torch.relu"],
    ),
    "a function as an argument": (
        _class(LAYERS + "\nself.act = act", FORWARD, "Net(F.softplus)", PLAIN + "import torch.nn.functional as F\n")
        .replace("{args}", ", act"),
        ["Net(F.relu)"],
    ),
    "a lambda": (
        _class(LAYERS + "\nself.act = lambda z: torch.tanh(z)", FORWARD).replace("{args}", ""),
        ["self.act = lambda z: torch.relu(z)"],
    ),
    "a function imported by its name": (
        _class(LAYERS, FORWARD.replace("self.act", "softplus"), head=PLAIN + "from torch.nn.functional import softplus\n")
        .replace("{args}", ""),
        ["x = nn.functional.relu(self.a(x))", "x = nn.functional.relu(self.b(x))"],
    ),
    "arguments go": (
        _class(LAYERS, "x = nn.functional.elu(self.a(x), 0.5)\nx = nn.functional.elu(input=self.b(x), alpha=.5)\nreturn self.c(x)")
        .replace("{args}", ""),
        ["nn.functional.relu(self.a(x))", "nn.functional.relu(input=self.b(x))"],
    ),
    "in place": (
        _class(LAYERS, "x = torch.sigmoid_(self.a(x))\nx = self.b(x).tanh_()\nreturn self.c(x)").replace("{args}", ""),
        ["x = torch.relu(self.a(x))", "x = self.b(x).relu_()"],
    ),
    "a module in a lambda of another name": (
        PLAIN + "make = lambda: nn.Sigmoid()\n" + NET.replace("nn.Sigmoid()", "make()") + SGD + TRAIN,
        ["make = lambda: nn.ReLU()"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SWAPS)
def test_an_activation_is_swapped_where_it_is_chosen(name: str, tmp_path: Path) -> None:
    text, wanted = SWAPS[name]
    new = text_of(patch_text(tmp_path, text, RELU))
    for part in wanted:
        assert part in new


def test_new_arguments_stand_where_the_class_is_called(tmp_path: Path) -> None:
    leaky = of("activation", kind="leaky_relu", slope=0.3)
    text = PLAIN + "act = nn.Tanh\n" + NET.replace("nn.Sigmoid", "act") + SGD + TRAIN
    assert "nn.LeakyReLU(0.3), nn.Linear(4, 4), nn.LeakyReLU(0.3)" in text_of(
        patch_text(tmp_path, text, leaky)
    )
    called = _class(LAYERS, "x = torch.tanh(self.a(x))\nx = self.b(x).tanh()\nreturn self.c(x)").replace(
        "{args}", ""
    )
    new = text_of(patch_text(tmp_path, called, leaky))
    assert "nn.functional.leaky_relu(self.a(x), 0.3)" in new
    assert "nn.functional.leaky_relu(self.b(x), 0.3)" in new


def test_output_activations_and_gates_stay(tmp_path: Path) -> None:
    forward = "g = torch.sigmoid(self.a(x))\nx = torch.sigmoid(self.b(x)) * g\nx = torch.sigmoid(self.a(x))\nreturn torch.sigmoid(self.c(x))"
    new = text_of(patch_text(tmp_path, _class(LAYERS, forward).replace("{args}", ""), RELU))
    assert new.count("torch.sigmoid") == 3
    assert "x = torch.relu(self.a(x))\n        return torch.sigmoid" in new


IMPORTS = {
    "from torch.nn import Linear, Sequential, Sigmoid\nimport torch\n": ("", "from torch.nn import Linear, Sequential, Sigmoid, ReLU\n"),
    "from torch.nn import *\nimport torch\n": ("", "ReLU()"),
    "import torch.nn as layers\nimport torch\n": ("layers.", "layers.ReLU()"),
    "import torch\n": ("torch.nn.", "torch.nn.ReLU()"),
    "import torch as th\nimport torch\n": ("th.nn.", "th.nn.ReLU()"),
    "from torch import nn, optim\nimport torch\n": ("nn.", "nn.ReLU()"),
    "import torch\nfrom torch.nn import (\n    Linear,\n    Sequential as S,\n    Sigmoid,\n)\nSequential = S\n": ("", "Sigmoid, ReLU,\n"),
}  # fmt: skip


@pytest.mark.parametrize("head", IMPORTS)
def test_torch_is_spelled_as_the_file_spells_it(head: str, tmp_path: Path) -> None:
    prefix, wanted = IMPORTS[head]
    new = text_of(patch_text(tmp_path, head + NET.replace("nn.", prefix) + SGD + TRAIN, RELU_HE))
    assert wanted in new
    compile(new, "script.py", "exec")


def test_an_import_is_added_where_none_serves(tmp_path: Path) -> None:
    text = (
        "from torch.optim import SGD\nfrom torch.nn import Linear, Sequential, Sigmoid, functional as F\n"
        "from torch import randn\n" + NET.replace("nn.", "") + "opt = SGD(model.parameters(), lr=0.1)\n"
        + TRAIN.replace("torch.nn.functional", "F").replace("torch.randn", "randn")
    )  # fmt: skip
    new = text_of(patch_text(tmp_path, text, of("init", scheme="xavier")))
    assert new.startswith("import torch\nfrom torch.optim import SGD\n")
    assert "generator = torch.Generator()" in new


RATES = {
    "lr=0.1": ("", "lr=0.05"),
    "0.1": ("", "model.parameters(), 0.05"),
    "lr=1e-1": ("", "lr=0.05"),
    "lr=LR": ("LR = 0.1\n", "LR = 0.05"),
    "lr=LR ": ("LR = 0.1\nprint(LR)\n", "lr=LR * 0.5 "),
    "lr=LR / 2": ("LR = 0.2\n", "lr=LR / 2 * 0.5"),
    "lr=LR + 0.05": ("LR = 0.05\n", "lr=(LR + 0.05) * 0.5"),
    "lr=cfg['lr']": ("cfg = {'lr': 0.1, 'n': 3}\n", "{'lr': 0.05, 'n': 3}"),
    'lr=cfg["lr"]': ("cfg = dict(lr=0.1)\n", "dict(lr=0.05)"),
    "lr=args.rate": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('-r', '--rate', type=float, default=0.1)\nargs = p.parse_args()\n",
        "default=0.05",
    ),
    "lr=args.lr": ("import types\nargs = types.SimpleNamespace(lr=0.1)\n", "SimpleNamespace(lr=0.05)"),
    "lr=Config.lr": ("class Config:\n    lr = 0.1\n", "lr=Config.lr * 0.5"),
    "lr=cfg.lr": ("class Config:\n    lr: float = 0.1\ncfg = Config()\n", "lr: float = 0.05"),
    "lr=f()": ("def f():\n    return 0.1\n", "lr=f() * 0.5"),
}


@pytest.mark.parametrize("written", RATES)
def test_the_rate_is_changed_where_it_is_written(written: str, tmp_path: Path) -> None:
    before, wanted = RATES[written]
    text = PLAIN + before + NET + f"opt = torch.optim.SGD(model.parameters(), {written})\n" + TRAIN
    assert wanted in text_of(patch_text(tmp_path, text, RATE))


def test_a_rate_that_is_left_out_is_written(tmp_path: Path) -> None:
    text = PLAIN + NET + "opt = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))\n" + TRAIN
    assert "betas=(0.9, 0.99), lr=0.0005)" in text_of(patch_text(tmp_path, text, RATE))


def test_every_group_of_the_model_gets_its_rate(tmp_path: Path) -> None:
    groups = '[{"params": model[0].parameters()}, {"params": model[2:].parameters(), "lr": 0.2}]'
    text = PLAIN + NET + f"opt = torch.optim.SGD({groups}, lr=0.1)\n" + TRAIN
    new = text_of(patch_text(tmp_path, text, RATE))
    assert '"lr": 0.1}], lr=0.05)' in new


def test_the_call_of_an_init_stands_before_the_optimizer_and_knows_the_models_name(tmp_path: Path) -> None:
    text = PLAIN + (
        "class Task:\n    def __init__(self):\n        self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))\n"
        "        self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)\n\n"
        "task = Task()\nmodel, opt = task.net, task.opt\n"
    ) + TRAIN  # fmt: skip
    new = text_of(patch_text(tmp_path, text, of("init", scheme="lecun")))
    assert "        init_weights(self.net)\n        self.opt = torch.optim" in new
    assert new.index("def init_weights(model)") < new.index("class Task")


def test_a_function_that_trains_several_models_is_not_touched(tmp_path: Path) -> None:
    text = PLAIN + (
        "def fit(net):\n    opt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
        "    for _ in range(3):\n        loss = net(torch.randn(8, 4)).pow(2).mean()\n"
        "        opt.zero_grad(); loss.backward(); opt.step()\n\n"
        + NET.replace("model", "first") + NET.replace("model", "second") + "fit(first)\nfit(second)\n"
    )  # fmt: skip
    new = text_of(patch_text(tmp_path, text, of("init", scheme="lecun")))
    assert "init_weights(first)\nfit(first)\nfit(second)\n" in new


def test_names_that_are_taken_are_left_alone(tmp_path: Path) -> None:
    text = PLAIN + "def init_weights(m):\n    pass\nResidual = 3\n" + NET + SGD + TRAIN
    new = text_of(patch_text(tmp_path, text, of("init", scheme="lecun") + of("residual")))
    assert "def init_weights_2(model)" in new and "init_weights_2(model)\nopt" in new
    assert "class Residual_2(nn.Sequential)" in new
