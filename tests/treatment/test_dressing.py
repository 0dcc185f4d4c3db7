"""Another forward for one object: what stays the same about it, and when it is refused."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from treat_models import Functional, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.boundary import Cast
from unvanish.treatment.dressing import Coat, coats_of, dress, inner_type
from unvanish.treatment.kinds import is_sequential, plain_type
from unvanish.treatment.operate import apply
from unvanish.treatment.source import Method

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Times(Coat):
    factor: float
    rank: ClassVar[int] = 1

    def put_on(self, base: type[nn.Module]) -> dict[str, Any]:
        plain, factor = base.forward, self.factor
        return {"forward": lambda module, *args: factor * plain(module, *args)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().__repr__()[:0] or self.fc(x)  # a closure over __class__


def test_the_object_stays_what_it_is() -> None:
    net, other = Net(), Net()
    plain, keys, shown = net(X), list(net.state_dict()), repr(net)
    undo = dress(net, Times(2.0))
    assert torch.equal(net(X), 2 * plain)
    assert isinstance(net, Net)
    assert (type(net).__name__, type(net).__module__, type(net).__qualname__) == ("Net", __name__, "Net")
    assert (repr(net), list(net.state_dict())) == (shown, keys)
    assert type(other) is Net
    assert plain_type(net) is Net
    undo()
    assert type(net) is Net
    assert torch.equal(net(X), plain)


def test_coats_of_one_kind_take_each_others_place_and_others_add_up() -> None:
    net = Net()
    plain = net(X)
    first = dress(net, Times(2.0))
    second = dress(net, Times(5.0))
    assert torch.equal(net(X), 5 * plain)
    third = dress(net, Cast(outside=torch.float64, inside=torch.float32, back=True))
    assert net(X.double()).dtype == torch.float64
    assert torch.equal(net(X.double()), (5 * plain).double())
    assert len(coats_of(net)) == 2
    assert inner_type(net) is Net
    for undo in (third, second, first):
        undo()
    assert type(net) is Net


@pytest.mark.parametrize("make", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_and_pickles_wear_the_same(make: Any) -> None:
    net = Net()
    dress(net, Times(3.0))
    twin = make(net)
    assert type(twin) is type(net)
    assert torch.equal(twin(X), net(X))


def test_a_class_that_says_itself_how_it_is_pickled_is_heard() -> None:
    net = Own()
    dress(net, Times(3.0))
    assert type(pickle.loads(pickle.dumps(net))) is Own  # noqa: S301


class Own(Net):
    def __reduce__(self) -> Any:
        return (Own, ())


def test_data_parallel_replicas_run_the_new_forward_on_their_own_parts() -> None:
    net = Net()
    dress(net, Times(2.0))
    replica = net._replicate_for_data_parallel()
    replica.fc = nn.Linear(8, 2)
    assert torch.equal(replica(X), 2 * replica.fc(X))


def test_torch_compile_traces_through_it() -> None:
    model = Functional().eval()
    apply(
        model,
        [
            Prescription(treatment="activation", parameters={"kind": "elu"}),
            Prescription(treatment="residual"),
        ],
    )
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(X), model(X))


def test_what_can_not_be_dressed_is_refused_and_stays() -> None:
    class Once(type):
        def __new__(mcs, name: str, bases: Any, own: Any) -> Any:
            if any(isinstance(b, Once) for b in bases):
                raise TypeError("final")
            return super().__new__(mcs, name, bases, own)

    class Final(nn.Module, metaclass=Once):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = Final()
    with pytest.raises(SurgeryError, match=r"can't be extended \(TypeError: final\)"):
        dress(model, Times(2.0))
    assert type(model) is Final
    patched = Net()
    patched.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(SurgeryError, match="replaced on the object"):
        dress(patched, Times(2.0))


def test_a_dressed_sequential_is_still_known_as_one() -> None:
    model = chain()
    dress(model, Times(2.0))
    assert is_sequential(model)


def test_no_class_of_a_script_is_kept_alive() -> None:
    def run() -> weakref.ref[type]:
        class Local(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.b(torch.sigmoid(self.a(x)))

        model = Local()
        apply(model, [Prescription(treatment="activation", parameters={"kind": "relu"})])
        model(X)
        return weakref.ref(Local)

    kept = run()
    gc.collect()  # the dressed class,
    gc.collect()  # and then what it was made of
    assert kept() is None


def test_every_method_of_torchs_own_modules_compiles_to_what_runs() -> None:
    """The proof that a source is what runs, on code of every style that there is."""
    kinds = [
        nn.Linear,
        nn.Conv2d,
        nn.LSTM,
        nn.GRUCell,
        nn.MultiheadAttention,
        nn.TransformerEncoderLayer,
        nn.BatchNorm1d,
    ]
    methods = [m for k in kinds for m in vars(k).values() if type(m) is type(Net.forward)]
    assert len(methods) > 20
    for method in methods:
        if not hasattr(method, "__wrapped__"):
            Method(method)
