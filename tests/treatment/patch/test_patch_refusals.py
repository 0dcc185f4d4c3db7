"""A source that is not understood gets no patch: one sentence on why, and what to write by hand, and where."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from patching import RELU_HE, SCRIPTS, facts_for, of, patch_text, patched, text_of
from test_patch_choices import NET, PLAIN, RELU, SGD, TRAIN

from unvanish.errors import UsageError
from unvanish.treatment.patch.facts import Site
from unvanish.treatment.patch.patch import patch_source, read_sources
from unvanish.treatment.patch.reading import read_facts
from unvanish.treatment.patch.rehearsal import record_script
from unvanish.treatment.recipe import recipe_for

NORM, SKIP = of("batchnorm"), of("residual")
BUILD = "def mlp(n):\n    return nn.Sequential(nn.Linear(n, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))\n"
REFUSED = {
    "another model of the same code": (
        PLAIN + BUILD + "target, model = mlp(4), mlp(4)\n" + SGD + TRAIN + "target\n", RELU, "another model",
    ),
    "an init of everything": (
        PLAIN + NET + "for p in model.parameters():\n    nn.init.uniform_(p, -0.1, 0.1)\n" + SGD + TRAIN, NORM, "script.py:4",
    ),
    "an init by apply": (
        PLAIN + "def init(m):\n    if hasattr(m, 'weight'):\n        nn.init.uniform_(m.weight, -0.1, 0.1)\n" + NET
        + "model.apply(init)\n" + SGD + TRAIN, NORM, "would initialise",
    ),
    "an init with an else": (
        PLAIN + NET + "for p in model.parameters():\n    if p.dim() > 1:\n        nn.init.xavier_uniform_(p)\n    else:\n"
        "        nn.init.zeros_(p)\n" + SGD + TRAIN, NORM, "would initialise",
    ),
    "an init of a list": (
        PLAIN + NET + "for m in model:\n    if isinstance(m, nn.Linear):\n        nn.init.normal_(m.weight)\n" + SGD + TRAIN,
        SKIP, "no longer find",
    ),
    "a layer picked by its number": (
        PLAIN + NET + "nn.init.normal_(model[2].weight)\n" + SGD + TRAIN, SKIP, "takes a layer out",
    ),
    "weights from a file": (
        PLAIN + "import os, tempfile\n" + NET + "f = tempfile.mktemp()\ntorch.save(model.state_dict(), f)\n"
        "model.load_state_dict(torch.load(f))\nos.remove(f)\n" + SGD + TRAIN, NORM, "loads weights",
    ),
    "an optimizer of single layers": (
        PLAIN + NET + "opt = torch.optim.SGD([*model[0].parameters(), *model[2].parameters(), *model[4].parameters()], lr=0.1)\n"
        + TRAIN, NORM, "one by one",
    ),
    "a layer of a library": (
        "import torch\nfrom torch import nn\n"
        "model = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True), nn.Linear(8, 2))\n"
        + SGD + TRAIN.replace("model(x)", "model(x[:, None])[:, 0]"), of("activation", kind="tanh"), "",
    ),
    "a closure": (
        PLAIN + NET + "opt = torch.optim.LBFGS(model.parameters(), lr=0.1)\nx = torch.randn(8, 4)\n"
        "def closure():\n    opt.zero_grad()\n    loss = model(x).pow(2).mean()\n    loss.backward()\n    return loss\n"
        "for _ in range(3):\n    opt.step(closure)\n", of("clip", norm=1.0), "closure",
    ),
    "precision": (PLAIN + NET + SGD + TRAIN, of("precision", mode="loss_scaling"), "precision has no form"),
    "lsuv": (PLAIN + NET + SGD + TRAIN, of("init", scheme="lsuv"), "measures a batch"),
    "nothing to do": (PLAIN + NET + SGD + TRAIN, of("activation", kind="sigmoid"), "no hidden activation"),
    "one of two can't be done": (PLAIN + NET + SGD + TRAIN, NORM + of("precision", mode="loss_scaling"), "precision has no form"),
    "an unknown number of layers": (
        PLAIN + "import random\nparts = [nn.Linear(4, 4), nn.Tanh()]\nwhile len(parts) < 12:\n    parts += [nn.Linear(4, 4), nn.Tanh()]\n"
        "model = nn.Sequential(*parts, nn.Linear(4, 2))\n" + SGD + TRAIN, of("simplify", layers=3), "layers that stay",
    ),
    "an LSTM whose states go on": (
        PLAIN + "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.r, self.c = nn.RNN(4, 4), nn.Linear(4, 2)\n"
        "    def forward(self, x):\n        return self.c(sum(self.r(x[None])).mean(0))\nmodel = Net()\n" + SGD + TRAIN,
        of("gated_rnn", cell="lstm"), "states",
    ),
    "two steps in one": (
        PLAIN + NET + "opts = [torch.optim.SGD(model[:2].parameters(), lr=0.1), torch.optim.SGD(model[2:].parameters(), lr=0.1)]\n"
        + TRAIN.replace("    opt.zero_grad()\n", "").replace("opt.step()", "[o.step() for o in opts]"),
        of("clip", norm=1.0), "several optimizers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_place_and_what_to_write(name: str, tmp_path: Path) -> None:
    text, plan, why = REFUSED[name]
    patch = patch_text(tmp_path, text, plan)
    assert patch.why_not is not None and why in patch.why_not
    assert "\n" not in patch.why_not
    assert not patch.diff and not patch.files
    assert "script.py:" in patch.snippet and "unvanish.apply(" in patch.snippet
    assert (tmp_path / "script.py").read_text() == text


ALLOWED = {
    "an init that asks for the kind": (
        "for m in model.modules():\n    if isinstance(m, (nn.Linear, nn.Conv2d)):\n        nn.init.xavier_uniform_(m.weight)\n", NORM,
    ),
    "an init of matrices": ("for p in model.parameters():\n    if p.dim() > 1:\n        nn.init.xavier_uniform_(p)\n", NORM),
    "a count": ("print(sum(p.numel() for p in model.parameters()))\nfor name, p in model.named_parameters():\n    print(name)\n", NORM),
    "a loop that looks": ("for m in model:\n    print(type(m))\n", SKIP),
    "an init of all modules": (
        "for m in model.modules():\n    if isinstance(m, nn.Linear):\n        nn.init.normal_(m.weight)\n", SKIP,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_loops_that_do_no_harm_are_no_reason(name: str, tmp_path: Path) -> None:
    code, plan = ALLOWED[name]
    assert patch_text(tmp_path, PLAIN + NET + code + SGD + TRAIN, plan).why_not is None


def test_norms_go_around_the_activations_where_places_in_the_list_count(tmp_path: Path) -> None:
    text = PLAIN + NET + "print(model[2].weight.shape)\n" + SGD + TRAIN
    new = text_of(patch_text(tmp_path, text, NORM))
    assert "nn.Linear(4, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Sigmoid()), nn.Linear" in new


def test_a_file_that_has_changed_or_is_missing_is_refused() -> None:
    facts = facts_for(SCRIPTS / "listed.py", RELU_HE)
    sources = read_sources(facts)
    changed = {"listed.py": sources["listed.py"] + b"\n"}
    assert "changed since it ran" in str(patch_source(changed, facts).why_not)
    assert "not among the sources" in str(patch_source({}, facts).why_not)
    assert "can't be parsed" in str(
        patch_source(
            {"listed.py": b"print 'no python 3'"},
            replace(facts, digests={"listed.py": hashlib.sha256(b"print 'no python 3'").hexdigest()}),
        ).why_not
    )


def test_facts_of_another_text_give_no_patch() -> None:
    facts = facts_for(SCRIPTS / "listed.py", RELU_HE)
    other = read_sources(facts)["listed.py"].replace(b"    nn.Linear(12, 12),\n", b"")
    patch = patch_source({"listed.py": other}, replace(facts, digests={}))
    assert patch.why_not is not None


def test_lines_alone_serve_where_python_knows_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 keeps the line of a call and nothing more."""
    script = SCRIPTS / "listed.py"
    wanted = patched(script, RELU_HE + of("learning_rate", factor=2.0)).files
    original = Site.__init__

    def without(self: Site, **values: object) -> None:
        original(self, **{**values, "end": None})  # type: ignore[arg-type]

    monkeypatch.setattr(Site, "__init__", without)
    recorder = record_script(script, script.parent)
    facts = read_facts(recorder, RELU_HE + of("learning_rate", factor=2.0))
    assert patch_source(read_sources(facts), facts).files == wanted


def test_several_calls_in_a_line_are_refused_where_python_knows_no_columns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Site.__init__
    monkeypatch.setattr(Site, "__init__", lambda self, **v: original(self, **{**v, "end": None}))
    patch = patch_text(tmp_path, PLAIN + NET + SGD + TRAIN, RELU)
    assert patch.why_not is not None and "script.py:3 builds" in patch.why_not


def test_a_recipe_for_another_model_and_a_script_without_one_are_refused(tmp_path: Path) -> None:
    recorder = record_script(SCRIPTS / "listed.py", SCRIPTS)
    other = record_script(SCRIPTS / "popped.py", SCRIPTS).roots[0].model
    with pytest.raises(UsageError, match="recipe's shapes"):
        read_facts(recorder, recipe_for(other, RELU_HE))
    (tmp_path / "none.py").write_text("print('nothing to see')\n")
    with pytest.raises(UsageError, match="no module that an optimizer trains"):
        read_facts(record_script(tmp_path / "none.py", tmp_path), RELU_HE)


def test_the_recipes_rate_and_seed_are_written(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PLAIN + NET + SGD + TRAIN)
    recorder = record_script(script, tmp_path)
    recipe = recipe_for(recorder.roots[0].model, RELU_HE, learning_rate=0.3, seed=7)
    facts = read_facts(recorder, recipe)
    new = text_of(patch_source(read_sources(facts), facts))
    assert "lr=0.3)" in new
    assert "manual_seed(7 ^ 0x5eed)" in new


def test_reading_the_facts_leaves_the_model_as_it_was() -> None:
    recorder = record_script(SCRIPTS / "helpers.py", SCRIPTS)
    model = recorder.roots[0].model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tree = [(n, id(m)) for n, m in model.named_modules()]
    read_facts(recorder, of("batchnorm") + of("residual") + of("init", scheme="orthogonal"))
    assert [(n, id(m)) for n, m in model.named_modules()] == tree
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_a_frozen_layer_gets_no_norm(tmp_path: Path) -> None:
    text = PLAIN + NET + "for p in model[0].parameters():\n    p.requires_grad = False\n" + SGD + TRAIN
    patch = patch_text(tmp_path, text, NORM)
    assert patch.why_not is not None and "0 is frozen" in patch.why_not


@pytest.mark.parametrize(
    "other",
    [
        "\n    def predict(self, x):\n        for layer in self.layers:\n            x = torch.tanh(layer(x))\n        return self.out(x)\n",
        "\n    def embed(self, x):\n        return torch.tanh(self.layers[0](x))\n",
    ],
)
def test_layers_that_another_method_runs_too_get_no_norm_in_forward(other: str, tmp_path: Path) -> None:
    net = (
        PLAIN + "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])\n        self.out = nn.Linear(4, 2)\n"
        "    def forward(self, x):\n        for layer in self.layers:\n            x = torch.tanh(layer(x))\n        return self.out(x)\n"
    )  # fmt: skip
    assert patch_text(tmp_path, net + "model = Net()\n" + SGD + TRAIN, NORM).why_not is None
    patch = patch_text(tmp_path, net + other + "model = Net()\n" + SGD + TRAIN, NORM)
    assert patch.why_not is not None and "was not seen to run" in patch.why_not


ODD = {
    "torch.compile": (NET + "fast = torch.compile(model, backend='eager')\n", "fast(x)"),
    "a scripted model": (NET + "model = torch.jit.script(model)\n", "model(x)"),
    "vmap": (NET, "torch.vmap(model)(x)"),
    "functional_call": (NET + "held = dict(model.named_parameters())\n", "torch.func.functional_call(model, held, (x,))"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_recording_does_not_disturb_an_odd_script(name: str, tmp_path: Path) -> None:
    net, call = ODD[name]
    text = PLAIN + net + SGD + TRAIN.replace("model(x)", call)
    (tmp_path / "script.py").write_text(text)
    recorder = record_script(tmp_path / "script.py", tmp_path)
    assert recorder.roots and recorder.steps
    patch_text(tmp_path, text, RELU)  # a patch or a reason; nothing else comes out
