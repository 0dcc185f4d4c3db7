"""FILE.py:FACTORY: what is taken, and what is refused with its mend."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from unvanish.errors import UsageError
from unvanish.launch.factory import load_factory
from unvanish.launch.target import is_factory
from unvanish.probe.example import example_input

NETS = """
import torch
from torch import nn
import beside

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, beside.CLASSES)
    def forward(self, x):
        return self.layer(x)

def whole():
    return Net(), (torch.randn(3, 4), torch.tensor([0, 1, 2])), nn.CrossEntropyLoss()

def pair(width=4):
    return Net(), torch.randn(3, width)

def wants(width):
    return Net()

def raises():
    raise RuntimeError("no data\\nhere")

def leaves():
    raise SystemExit("bye")

def number():
    return 3

def first_is_none():
    return None, 3

def four():
    return Net(), 1, 2, 3

def loss_is_text():
    return Net(), 1, "mse"

def empty():
    return nn.ReLU()

model = Net()
number_too = 5
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("CLASSES = 3\n", encoding="utf-8")
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    return tmp_path / "nets.py"


def test_what_reads_like_a_factory() -> None:
    assert is_factory("nets.py:build") and is_factory("a/b c.py:_f1") and is_factory("nets.py:a.b")
    assert not any(map(is_factory, ["nets.py", "nets:build", "nets.py:", "nets.py:1"]))


def test_all_three_forms_and_a_model_that_is_there(nets: Path) -> None:
    path = list(sys.path)
    whole = load_factory(f"{nets}:whole")
    assert isinstance(whole.model, nn.Module) and isinstance(whole.loss_fn, nn.CrossEntropyLoss)
    assert load_factory(f"{nets}:pair").batch.shape == (3, 4)
    for name in ("Net", "model"):
        assert load_factory(f"{nets}:{name}").batch.shape == (32, 4)
    assert sys.path == path


WRONG = {
    "nothing": r"has no function 'nothing'; functions there: Net, whole, pair",
    "whol": "did you mean whole",
    "wants": r"can't be called without arguments \(it wants width\); give them defaults",
    "raises": "raised RuntimeError: no data; call it by itself",
    "leaves": "raised SystemExit: bye",
    "number": "it is of type int, not an nn.Module; return",
    "first_is_none": "its first value is of type NoneType, not an nn.Module",
    "four": "gave 4 values; return",
    "loss_is_text": "the loss is of type str, not a function",
    "empty": "the model has no parameters",
    "number_too": "is of type int, not something to call",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_factory_is_refused(name: str, nets: Path) -> None:
    with pytest.raises(UsageError, match=WRONG[name]) as raised:
        load_factory(f"{nets}:{name}")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_breaks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_factory(f"{tmp_path / 'none.py'}:build")
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n", encoding="utf-8")
    with pytest.raises(
        UsageError, match="could not be imported: ModuleNotFoundError: No module named 'nowhere"
    ):
        load_factory(f"{tmp_path / 'broken.py'}:build")
    assert not [name for name in sys.modules if name.startswith("broken_of")]


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(7, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding(x).mean(1))


MODELS = {
    "linear": lambda: nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)),
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(49, 2)),
    "conv": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 2)),
    "conv1d": lambda: nn.Conv1d(2, 4, 3),
    "embedding": Sequence,
    "lstm": lambda: nn.LSTM(3, 4, batch_first=True),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True),
    "norm first": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_alone_gets_an_input_that_fits(name: str) -> None:
    model = MODELS[name]()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(example_input(model))
    state = torch.get_rng_state().clone()
    first, second = example_input(model), example_input(model)
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)
    assert before.keys() == model.state_dict().keys()


def test_one_that_takes_something_else_is_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.a(x + y)

    with pytest.raises(
        UsageError, match=r"no example input could be guessed for Two.*return \(model, batch\)"
    ):
        example_input(Two())
