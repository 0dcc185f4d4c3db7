"""Seeds that a script sets, shifted: what differs from seed to seed, what stays, and that all is put back."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from torch.utils import data

from unvanish.launch.seeds import shifted_seeds

Draw = Callable[[], object]


def _by_name() -> object:
    from numpy.random import RandomState, default_rng

    return RandomState(3).rand(), default_rng(3).random()


def _torch_global() -> object:
    torch.manual_seed(3)
    return torch.rand(1).item()


def _numpy_global() -> object:
    np.random.seed(3)  # noqa: NPY002
    return np.random.rand()  # noqa: NPY002


def _python_global() -> object:
    random.seed(a=3)
    return random.random()


def _state_reseeded() -> object:
    state = np.random.RandomState()
    state.seed(np.int64(3))
    return state.rand()


SHIFTED: dict[str, Draw] = {
    "torch.manual_seed": _torch_global,
    "np.random.seed": _numpy_global,
    "random.seed": _python_global,
    "imported by name": _by_name,
    "torch.Generator": lambda: torch.rand(1, generator=torch.Generator().manual_seed(3)).item(),
    "RandomState": lambda: np.random.RandomState(3).rand(2).tolist(),
    "RandomState.seed": _state_reseeded,
    "default_rng": lambda: np.random.default_rng(seed=3).random(),
    "random.Random": lambda: [random.Random(3).random()],
    "unseeded default_rng": lambda: np.random.default_rng().random(),
    "unseeded random.Random": lambda: random.Random().random(),
    "unseeded start": lambda: (torch.rand(1).item(), random.random(), np.random.rand()),  # noqa: NPY002
}
LEFT: dict[str, Draw] = {
    "train_test_split": lambda: list(train_test_split(np.arange(20), random_state=3)[0]),
    "make_moons": lambda: list(make_moons(8, noise=0.1, random_state=3)[0][:, 0]),
    "random_split": lambda: list(
        data.random_split(range(20), [10, 10], generator=torch.Generator().manual_seed(3))[0].indices
    ),
    "a text": lambda: random.Random("three").random(),
}


def drawn(draw: Draw, shift: int) -> object:
    with shifted_seeds(shift):
        return draw()


@pytest.mark.parametrize("name", SHIFTED)
def test_what_a_script_seeds_differs_and_can_be_repeated(name: str) -> None:
    draw = SHIFTED[name]
    assert drawn(draw, 1) == drawn(draw, 1) != drawn(draw, 2)
    if not name.startswith("unseeded"):
        assert drawn(draw, 0) == draw()


@pytest.mark.parametrize("name", LEFT)
def test_what_splits_or_makes_data_stays(name: str) -> None:
    draw = LEFT[name]
    assert drawn(draw, 0) == drawn(draw, 1) == drawn(draw, 2) == draw()


def test_a_generator_that_has_split_goes_on_with_the_shifted_seed() -> None:
    def shuffled() -> list[int]:
        generator = torch.Generator().manual_seed(3)
        data.random_split(range(20), [10, 10], generator=generator)
        return torch.randperm(20, generator=generator).tolist()

    assert drawn(shuffled, 1) == drawn(shuffled, 1) != drawn(shuffled, 2)


def test_large_seeds_are_as_they_were_without_a_shift() -> None:
    def large() -> float:
        torch.manual_seed(2**40 + 1)
        return torch.rand(1).item()

    assert drawn(large, 0) == large()


def test_classes_know_instances_made_before_and_after() -> None:
    old = np.random.RandomState(0), random.Random(0), torch.Generator()
    with shifted_seeds(1):
        kinds = np.random.RandomState, random.Random, torch.Generator
        assert all(isinstance(o, k) for o, k in zip(old, kinds, strict=True))
        new = np.random.RandomState(0), random.Random(0), torch.Generator()
        assert check_random_state(old[0]) is old[0] and check_random_state(new[0]) is new[0]
        assert isinstance(torch.default_generator, torch.Generator)
        torch.randperm(4, generator=new[2])
    assert all(isinstance(n, type(o)) for n, o in zip(new, old, strict=True))


def test_generators_can_be_pickled_and_copied() -> None:
    with shifted_seeds(1):
        for made in (np.random.RandomState(0), random.Random(0)):
            for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):  # noqa: S301
                assert again.random() == copy.deepcopy(made).random()


def test_all_is_put_back() -> None:
    def known() -> list[object]:
        owners = (torch, torch.random, torch.cuda, np.random, random, torch.utils.data)
        names = ("manual_seed", "Generator", "seed", "RandomState", "default_rng", "Random", "random_split")
        return [getattr(o, n, None) for o in owners for n in names]

    before = known()
    with shifted_seeds(5):
        assert known() != before
    assert known() == before
