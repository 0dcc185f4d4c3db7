"""Patches of scripts that update their weights by hand: rehearsed as those with an optimizer are."""

from __future__ import annotations

from pathlib import Path

import pytest

from unvanish.launch.patching import Patched, make_patch
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import of
from unvanish.treatment.recipe import Recipe, fingerprint_of

HEAD = """
import torch
from torch import nn

x = torch.randn(64, 8)
y = (x[:, :1] > 0).float()
"""
NET = "net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 1))\n"
UPDATE = """        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad
"""
PLAIN = HEAD + NET + """
for epoch in range(5):
    for rows in torch.randperm(64).split(16):
        loss = (net(x[rows]) - y[rows]).square().mean()
""" + UPDATE  # fmt: skip
GRAD = HEAD + NET + """
params = list(net.parameters())
for epoch in range(5):
    for rows in torch.randperm(64).split(16):
        loss = (net(x[rows]) - y[rows]).square().mean()
        for p, g in zip(params, torch.autograd.grad(loss, params)):
            p.data -= 0.1 * g
"""  # fmt: skip
FUNCTIONS = HEAD + """

def update(net, rows):
    if True:
        loss = (net(x[rows]) - y[rows]).square().mean()
""" + UPDATE + """

def train(net, epochs):
    for epoch in range(epochs):
        for rows in torch.randperm(64).split(16):
            update(net, rows)


for run in range(2):
    """ + NET + """    train(net, 5)
"""  # fmt: skip
SHAPES = (("0.weight", (8, 8)), ("0.bias", (8,)), ("2.weight", (1, 8)), ("2.bias", (1,)))
TANH = (of("activation", kind="tanh"), of("init", scheme="xavier"))


def made(folder: Path, text: str, *plan: Prescription) -> Patched:
    (folder / "script.py").write_text(text)
    recipe = Recipe(
        model_class="Sequential",
        fingerprint=fingerprint_of(SHAPES),
        parameters=81,
        prescriptions=plan,
        by_hand=True,
    )
    return make_patch(folder / "script.py", (), recipe, 0)


@pytest.mark.parametrize("text", [PLAIN, GRAD, FUNCTIONS], ids=["plain", "autograd.grad", "functions"])
def test_the_patched_script_does_what_the_recipe_does(tmp_path: Path, text: str) -> None:
    patch = made(tmp_path, text, *TANH)
    assert patch.why_not is None and patch.same is True
    added = [
        line[1:] for line in patch.diff.splitlines() if line.startswith("+") and "init_weights(net)" in line
    ]
    assert added == ["    init_weights(net)" if text is FUNCTIONS else "init_weights(net)"]
    assert patch.diff.index(
        "init_weights(net)\n for epoch" if text is not FUNCTIONS else "init_weights(net)\n     train"
    )


def test_new_norms_and_a_list_that_the_recipe_finds_without_them(tmp_path: Path) -> None:
    assert made(tmp_path, PLAIN, of("batchnorm")).same is True
    listed = made(tmp_path, GRAD, of("batchnorm"))
    assert listed.same is False and listed.by_hand


def test_a_rate_that_stands_in_the_update_is_to_be_changed_by_hand(tmp_path: Path) -> None:
    patch = made(tmp_path, PLAIN, of("learning_rate", factor=0.3))
    assert patch.why_not == "the learning rate is a number in the script's own update of the weights"
    assert "the rate times 0.3" in patch.snippet and "before the training loop" in patch.snippet
