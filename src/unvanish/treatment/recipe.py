"""Recipes: a treatment as JSON that a person can read and edit. No code, no pickle, only known words."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

from torch import nn

from unvanish.errors import RecipeError, SurgeryError
from unvanish.schema.finding import TreatmentName
from unvanish.schema.run import LOOSE
from unvanish.schema.treatment import JsonValue, Prescription
from unvanish.treatment.operate import Optimizers, Undo, apply_when_ready
from unvanish.treatment.registry import TREATMENTS

RECIPE_SCHEMA = 1
KIND = "unvanish recipe"
SIZE_LIMIT = 256 * 1024  # bytes; a recipe has a few hundred
DEPTH_LIMIT = 8
PRESCRIPTION_LIMIT = 64
TEXT_LIMIT = 2000
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_MEND = "correct it, or write a new one with `unvanish treat`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to do to which model. `fingerprint` is of the untreated model's parameter names and shapes.

    `learning_rate` is the rate of the first parameter group that the trials found best (the other groups keep
    their ratio to it); None leaves the script's. `seed` decides the drawn weights; None takes torch's seed.
    `by_hand`: the script updates the weights without an optimizer, so that the model is treated at its first
    training forward, and a rate is prescribed as a factor (treatment learning_rate).
    """

    model_class: str
    fingerprint: str
    parameters: int
    prescriptions: tuple[Prescription, ...]
    learning_rate: float | None = None
    seed: int | None = None
    provenance: str = ""
    by_hand: bool = False

    @property
    def loose(self) -> bool:
        """Whether it is for tensors that no module holds."""
        return self.model_class == LOOSE

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return {
            "schema": RECIPE_SCHEMA,
            "kind": KIND,
            "model": {
                "class": self.model_class,
                "parameters": self.parameters,
                "fingerprint": self.fingerprint,
            },
            "prescriptions": [p.to_dict() for p in self.prescriptions],
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "provenance": self.provenance,
            **({"by_hand": True} if self.by_hand else {}),
        }


def fingerprint(model: nn.Module) -> str:
    """A hash of the names and shapes of all parameters; neither their values nor their order count."""
    return fingerprint_of(_shapes(model))


def fingerprint_of(shapes: Iterable[tuple[str, Sequence[int]]]) -> str:
    """The same from (name, shape) pairs, as a recorded run knows them.

    A net that grew while it was recorded has them in the order in which they came.
    """
    return _hash(sorted(_lines(shapes)))


def has_fingerprint(model: nn.Module, mark: str) -> bool:
    """Whether it is that model. Recipes of before know the hash of the parameters in the model's own order."""
    lines = _lines(_shapes(model))
    return mark in (_hash(sorted(lines)), _hash(lines))


def _shapes(model: nn.Module) -> list[tuple[str, Sequence[int]]]:
    return [(name, tuple(p.shape)) for name, p in model.named_parameters()]


def _lines(shapes: Iterable[tuple[str, Sequence[int]]]) -> list[str]:
    return [f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes]


def _hash(lines: Sequence[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def recipe_for(
    model: nn.Module,
    prescriptions: Sequence[Prescription],
    *,
    learning_rate: float | None = None,
    seed: int | None = None,
    provenance: str = "",
    by_hand: bool = False,
) -> Recipe:
    """A recipe for this (untreated) model."""
    return Recipe(
        model_class=type(model).__name__,
        fingerprint=fingerprint(model),
        parameters=sum(p.numel() for p in model.parameters()),
        prescriptions=tuple(prescriptions),
        learning_rate=learning_rate,
        seed=seed,
        provenance=provenance,
        by_hand=by_hand,
    )


def save_recipe(recipe: Recipe, path: str | Path) -> Path:
    """Write a recipe; the file is whole or not there at all.

    Raises:
        RecipeError: the place can't be written to, or the recipe would not load again.
    """
    text = json.dumps(recipe.to_dict(), indent=2, allow_nan=False) + "\n"
    parse_recipe(text)
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".recipe-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(draft).replace(target)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RecipeError(
            f"can't write the recipe to {target}: {error.strerror}", "choose another place"
        ) from error
    return target


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a file.

    Raises:
        RecipeError: not there, too large, no JSON, or not a recipe; the line says which part is wrong.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise RecipeError(f"can't read the recipe {path}: {error.strerror}", "check the path") from error
    except ValueError as error:  # not UTF-8, or a path that no file can have
        raise RecipeError(
            f"{path} is not a text file", "hand in the JSON that `unvanish treat` wrote"
        ) from error
    if len(raw) > SIZE_LIMIT:
        raise RecipeError(f"{path} is larger than {SIZE_LIMIT // 1024} KiB, which no recipe is", _MEND)
    return parse_recipe(text)


def parse_recipe(text: str) -> Recipe:
    """Read a recipe from text.

    Raises:
        RecipeError: as load_recipe.
    """
    _refuse_depth(text)
    try:
        data = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constants)
    except RecursionError as error:
        raise RecipeError("the recipe is nested too deeply", _MEND) from error
    except ValueError as error:
        raise RecipeError(f"the recipe is not valid JSON: {str(error)[:120]}", _MEND) from error
    data = _object(data, "the recipe", required={"schema", "kind", "model", "prescriptions"},
                   allowed={"learning_rate", "seed", "provenance", "by_hand"})  # fmt: skip
    if data["kind"] != KIND:
        raise RecipeError(f'"kind" is not "{KIND}"', "hand in the recipe that `unvanish treat` wrote")
    if type(data["schema"]) is not int or data["schema"] != RECIPE_SCHEMA:
        raise RecipeError(f"this recipe's schema is not {RECIPE_SCHEMA}", "use the unvanish that wrote it")
    model = _object(data["model"], '"model"', required={"class", "parameters", "fingerprint"}, allowed=set())
    mark = _text(model["fingerprint"], '"model.fingerprint"')
    if not _FINGERPRINT.fullmatch(mark):
        raise RecipeError('"model.fingerprint" is not "sha256:" and 64 hex digits', _MEND)
    count = _whole(_number(model["parameters"], '"model.parameters"', 0, 2**62, whole=True))
    if count is None:
        raise RecipeError('"model.parameters" is null', _MEND)
    return Recipe(
        model_class=_text(model["class"], '"model.class"'),
        fingerprint=mark,
        parameters=count,
        prescriptions=_prescriptions(data["prescriptions"]),
        learning_rate=_number(data.get("learning_rate"), '"learning_rate"', 1e-12, 1e6),
        seed=_whole(_number(data.get("seed"), '"seed"', 0, 2**64 - 1, whole=True)),
        provenance=_text(data.get("provenance", ""), '"provenance"'),
        by_hand=_by_hand(data),
    )


def apply_recipe(model: nn.Module, recipe: Recipe | str | Path, optimizer: Optimizers = None) -> nn.Module:
    """Treat the model in place by a recipe (or the file that holds one), and return it: `unvanish.apply`.

    Call it before the optimizer is built, or hand the optimizer in: its groups and state are brought along,
    and its learning rate is set to the recipe's. Where the loop updates the weights by hand, before that loop, and
    before lists of its parameters are made. A part that needs a batch (LSUV, standardised inputs) is carried
    out at the first training forward.

    Raises:
        RecipeError: the file is no recipe, or one for another model.
        SurgeryError: it can't be carried out; the model is as it was.
    """
    known = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    undo_for_recipe(model, known, optimizer)
    return model


def undo_for_recipe(model: nn.Module, recipe: Recipe, optimizer: Optimizers = None) -> Undo:
    """As apply_recipe, but return the way back.

    Raises:
        RecipeError: the recipe is for another model.
        SurgeryError: it can't be carried out; the model is as it was.
    """
    if not has_fingerprint(model, recipe.fingerprint):
        count = sum(p.numel() for p in model.parameters())
        same = count == recipe.parameters
        raise RecipeError(
            f"this recipe is for a {recipe.model_class} with {recipe.parameters} parameters, "
            f"and the model is a {type(model).__name__} with {count}"
            + (" (their names or shapes differ)" if same else ""),
            "apply it to the untreated model that it was made for",
        )
    plan = list(recipe.prescriptions)
    rate = _rate_factor(recipe, optimizer)
    if rate is not None:
        plan.insert(0, rate)
    by_hand = recipe.by_hand and optimizer is None
    return apply_when_ready(model, plan, optimizer=optimizer, seed=recipe.seed, by_hand=by_hand)


def _by_hand(data: dict[str, Any]) -> bool:
    by_hand = data.get("by_hand", False)
    if not isinstance(by_hand, bool):
        raise RecipeError('"by_hand" must be true or false', _MEND)
    if by_hand and data.get("learning_rate") is not None:
        raise RecipeError(
            'with "by_hand" there is no optimizer that could have the rate of "learning_rate"',
            "set that to null, and prescribe the treatment learning_rate with a factor",
        )
    return by_hand


def _rate_factor(recipe: Recipe, optimizer: Optimizers) -> Prescription | None:
    first = optimizer[0] if isinstance(optimizer, Sequence) and optimizer else optimizer
    if recipe.learning_rate is None or first is None or isinstance(first, Sequence):
        return None
    now = float(first.param_groups[0]["lr"])
    if now <= 0 or math.isclose(now, recipe.learning_rate):
        return None
    return Prescription(treatment="learning_rate", parameters={"factor": recipe.learning_rate / now})


def _prescriptions(value: Any) -> tuple[Prescription, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= PRESCRIPTION_LIMIT:
        raise RecipeError(f'"prescriptions" must be a list of 1 to {PRESCRIPTION_LIMIT}', _MEND)
    found = []
    for place, item in enumerate(value):
        where = f"prescription {place + 1}"
        entry = _object(item, where, required={"treatment"}, allowed={"target", "parameters"})
        name = _text(entry["treatment"], f"{where}: treatment")
        if name not in get_args(TreatmentName):
            raise RecipeError(f"{where}: there is no treatment {name[:40]!r}", _MEND)
        parameters = _object(
            entry.get("parameters", {}), f"{where}: parameters", required=set(), allowed=None
        )
        found.append(
            Prescription(
                treatment=name,  # type: ignore[arg-type]  # checked against the literal above
                target=_text(entry.get("target", "*"), f"{where}: target"),
                parameters={k: _plain(v, where) for k, v in parameters.items()},
            )
        )
        try:
            TREATMENTS.read(found[-1])
        except SurgeryError as error:
            raise RecipeError(f"{where}: {error.mistake}", error.mend) from error
    return tuple(found)


def _object(value: Any, what: str, *, required: set[str], allowed: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{what} must be an object in braces", _MEND)
    missing = required - set(value)
    if missing:
        raise RecipeError(f"{what} lacks {', '.join(sorted(missing))}", _MEND)
    unknown = set() if allowed is None else set(value) - required - allowed
    if unknown:
        raise RecipeError(f"{what} has an unknown entry {min(unknown)[:40]!r}", "take it out")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LIMIT:
        raise RecipeError(f"{what} must be a text of at most {TEXT_LIMIT} characters", _MEND)
    return value


def _number(value: Any, what: str, low: float, high: float, *, whole: bool = False) -> float | None:
    if value is None:
        return None
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise RecipeError(f"{what} must be {kind} in {low:g} .. {high:g}", _MEND)
    return value


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _plain(value: Any, where: str) -> JsonValue:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _text(value, f"{where}: each parameter's value")


def _refuse_depth(text: str) -> None:
    """Count brackets outside of strings before the parser recurses into them."""
    depth, quoted, escaped = 0, False, False
    for letter in text:
        if quoted:
            quoted, escaped = escaped or letter != '"', not escaped and letter == "\\"
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise RecipeError(f"the recipe is nested more than {DEPTH_LIMIT} deep", _MEND)
        elif letter in "]}":
            depth -= 1


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RecipeError("the recipe names the same entry twice in one object", "keep one of them")
    return found


def _no_constants(word: str) -> NoReturn:
    raise RecipeError(f"the recipe holds {word}, which is no number", _MEND)
