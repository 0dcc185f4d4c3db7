"""Recipes: a round trip, and what happens to hostile ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from treat_models import chain

from unvanish.errors import RecipeError, SurgeryError
from unvanish.treatment.candidate import of
from unvanish.treatment.catalogue import seed_candidates
from unvanish.treatment.operate import apply
from unvanish.treatment.recipe import (
    Recipe,
    apply_recipe,
    fingerprint,
    fingerprint_of,
    has_fingerprint,
    load_recipe,
    parse_recipe,
    recipe_for,
    save_recipe,
    undo_for_recipe,
)

GOOD = recipe_for(
    chain(12), seed_candidates()[1].prescriptions, learning_rate=0.3, seed=7, provenance="a test"
).to_dict()


@pytest.mark.parametrize("candidate", seed_candidates(), ids=lambda c: c.name)
def test_a_recipe_comes_back_as_it_was(candidate: Any, tmp_path: Path) -> None:
    recipe = recipe_for(chain(12), candidate.prescriptions, learning_rate=0.3, provenance="Größe")
    path = save_recipe(recipe, tmp_path / "new" / "recipe.json")
    assert load_recipe(path) == recipe
    assert [p.name for p in path.parent.iterdir()] == ["recipe.json"]


def test_a_recipe_for_a_script_without_an_optimizer_says_so_and_others_say_nothing(tmp_path: Path) -> None:
    assert "by_hand" not in GOOD
    recipe = recipe_for(chain(12), seed_candidates()[1].prescriptions, by_hand=True)
    assert recipe.to_dict()["by_hand"] is True
    assert load_recipe(save_recipe(recipe, tmp_path / "recipe.json")) == recipe
    assert not parse_recipe(json.dumps({**GOOD, "by_hand": False})).by_hand
    for value in ("yes", 1, None, []):
        with pytest.raises(RecipeError, match='"by_hand" must be true or false'):
            parse_recipe(json.dumps({**GOOD, "by_hand": value}))
    with pytest.raises(RecipeError, match="there is no optimizer that could have the rate"):
        parse_recipe(json.dumps({**GOOD, "by_hand": True}))


def test_without_an_optimizer_a_rate_is_a_factor_of_the_gradients() -> None:
    plan = [of("learning_rate", factor=0.5), of("init", scheme="lsuv"), of("batchnorm")]
    model, twin = chain(3), chain(3)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(16, 8)
    with pytest.raises(SurgeryError, match="no optimizer to set a rate in"):
        apply(twin, plan[:1])
    undo = undo_for_recipe(model, recipe_for(model, plan, seed=3, by_hand=True))
    apply(twin, plan[1:], batch=x, seed=3)
    model(x)  # what waited is done now, and new parameters have the factor, too
    assert not undo.pending
    wanted = torch.autograd.grad(twin(x).square().sum(), list(twin.parameters()))
    found = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    assert len(found) == len(wanted) > 6
    assert all(torch.allclose(2 * a, b) for a, b in zip(found, wanted, strict=True))
    model(x).square().sum().backward()
    assert all(torch.allclose(2 * p.grad, b) for p, b in zip(model.parameters(), wanted, strict=True))
    kept = next(iter(model.parameters()))
    undo.undo()
    kept.grad = None
    (kept * 3).sum().backward()
    assert bool((kept.grad == 3).all())


def test_a_recipe_does_what_the_prescriptions_do() -> None:
    torch.manual_seed(0)
    a, b = chain(12), chain(12)
    b.load_state_dict(a.state_dict())
    recipe = parse_recipe(json.dumps(GOOD))
    optimizer = torch.optim.SGD(
        [{"params": a[0].parameters(), "lr": 0.1}, {"params": a[2:].parameters(), "lr": 0.2}]
    )
    assert apply_recipe(a, recipe, optimizer) is a
    apply(b, recipe.prescriptions, seed=7)
    x = torch.randn(4, 8)
    assert torch.equal(a(x), b(x))
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.3, 0.6])


def test_a_recipe_with_lsuv_waits_for_the_data() -> None:
    lsuv = next(c for c in seed_candidates() if c.name == "lsuv")
    model = chain(12)
    undo = undo_for_recipe(model, recipe_for(model, lsuv.prescriptions))
    assert undo.pending
    assert float(model(torch.randn(32, 8)).detach().std()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("other", [chain(11), chain(12, width=9), nn.Sequential(chain(12))])
def test_a_recipe_for_another_model_changes_nothing(other: nn.Module) -> None:
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(RecipeError, match="this recipe is for a Sequential") as caught:
        apply_recipe(other, parse_recipe(json.dumps(GOOD)))
    assert caught.value.mend
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_a_second_application_is_noticed_where_the_parameters_changed() -> None:
    model = chain(12)
    recipe = recipe_for(model, next(c for c in seed_candidates() if c.name == "batchnorm").prescriptions)
    apply_recipe(model, recipe)
    with pytest.raises(RecipeError):
        apply_recipe(model, recipe)


def _changed(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def _prescribed(**entry: Any) -> str:
    return _changed(prescriptions=[entry])


HOSTILE = {
    "empty": "",
    "no json": "relu, please",
    "a list": "[]",
    "a number": "3",
    "cut off": json.dumps(GOOD)[:-20],
    "deep list": "[" * 100_000,
    "deep object": '{"a":' * 100_000,
    "deep value": _prescribed(treatment="init", parameters={"scheme": [[[[[[[[[1]]]]]]]]]}),
    "nan": _changed(learning_rate=float("nan")),
    "infinity": _changed(learning_rate=float("inf")),
    "overflow": json.dumps(GOOD).replace("0.3", "1e999"),
    "huge integer": json.dumps(GOOD).replace("0.3", "9" * 10_000),
    "rate below 0": _changed(learning_rate=-1),
    "rate is a text": _changed(learning_rate="0.1"),
    "rate is true": _changed(learning_rate=True),
    "seed with a comma": _changed(seed=1.5),
    "schema of tomorrow": _changed(schema=2),
    "schema is true": _changed(schema=True),
    "another kind": _changed(kind="pip install"),
    "unknown entry": _changed(code="__import__('os')"),
    "doubled entry": json.dumps(GOOD)[:-1] + ', "seed": 8}',
    "no prescriptions": _changed(prescriptions=[]),
    "too many": _changed(prescriptions=GOOD["prescriptions"] * 100),
    "prescription is a text": _changed(prescriptions=["relu"]),
    "unknown treatment": _prescribed(treatment="os.system"),
    "a word that the cell is not": _prescribed(treatment="gated_rnn", parameters={"cell": "elman"}),
    "treatment is an object": _prescribed(treatment={}),
    "unknown parameter": _prescribed(treatment="batchnorm", parameters={"eps": 1}),
    "huge size": _prescribed(treatment="simplify", parameters={"layers": 10**300}),
    "parameters are a list": _prescribed(treatment="batchnorm", parameters=[]),
    "a long target": _prescribed(treatment="batchnorm", target="x" * 10_000),
    "target is a number": _prescribed(treatment="batchnorm", target=1),
    "no fingerprint": _changed(model={"class": "Net", "parameters": 3}),
    "bad fingerprint": _changed(model={"class": "Net", "parameters": 3, "fingerprint": "sha256:../../etc"}),
    "model is null": _changed(model=None),
    "count below 0": _changed(model={**GOOD["model"], "parameters": -1}),
    "count is null": _changed(model={**GOOD["model"], "parameters": None}),
    "long words": _changed(provenance="x" * 10_000),
    "pickle": pickle.dumps(GOOD).decode("latin-1"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_recipe_is_one_clear_line(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(HOSTILE[name])
    assert caught.value.mend
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_good_one_is_good() -> None:
    assert parse_recipe(json.dumps(GOOD)).seed == 7


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_is_a_recipe_or_a_recipe_error(value: Any) -> None:
    for text in (
        json.dumps(value),
        _changed(prescriptions=value),
        _changed(model=value),
        _changed(provenance=value),
    ):
        with contextlib.suppress(RecipeError):  # any other exception is the failure
            assert isinstance(parse_recipe(text), Recipe)


@given(st.text())
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.json", tmp_path / "binary.json"
    large.write_text(" " * 300_000 + json.dumps(GOOD))
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "not there", large, binary, Path("bad\0name")):
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        assert caught.value.mend


def test_an_endless_file_is_not_read_to_its_end() -> None:
    endless = Path("/dev/zero")
    if not endless.exists():
        pytest.skip("no /dev/zero on this system")
    with pytest.raises(RecipeError, match="larger than"):
        load_recipe(endless)


def test_a_place_that_can_not_be_written_to(tmp_path: Path) -> None:
    recipe = parse_recipe(json.dumps(GOOD))
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="can't write"):
        save_recipe(recipe, tmp_path / "file" / "recipe.json")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(RecipeError, match="can't write"):
            save_recipe(recipe, tmp_path / "recipe.json")


def test_a_target_of_the_recipe_that_is_not_there_changes_nothing() -> None:
    model = chain(12)
    data = json.loads(json.dumps(GOOD))
    data["prescriptions"].append({"treatment": "batchnorm", "target": "0.weight.__class__"})
    before = [id(m) for m in model.modules()]
    with pytest.raises(SurgeryError, match="no module"):
        apply_recipe(model, parse_recipe(json.dumps(data)))
    assert [id(m) for m in model.modules()] == before


def test_the_order_of_the_parameters_is_no_part_of_a_model_and_recipes_of_before_still_fit() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    assert fingerprint_of(shapes) == fingerprint_of(shapes[::-1]) == fingerprint(model)
    lines = "\n".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes[::-1])
    assert not has_fingerprint(model, "sha256:" + hashlib.sha256(lines.encode()).hexdigest())
    lines = "\n".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes)
    assert has_fingerprint(model, "sha256:" + hashlib.sha256(lines.encode()).hexdigest())
    assert not has_fingerprint(nn.Linear(2, 3), fingerprint(model))
