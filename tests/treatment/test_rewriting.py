"""Functions called in forward: swapped, skipped and dropped in the running code, with all else as it was written."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from treat_models import Attentive, Attributes, Bare, Functional, FunctionalLoop, Gated, Strict

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment import activations, tracing
from unvanish.treatment.anatomy import read_anatomy
from unvanish.treatment.operate import apply, apply_when_ready

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def of(treatment: str, target: str = "*", **parameters: object) -> tuple[Prescription, ...]:
    return (Prescription(treatment=treatment, target=target, parameters=parameters),)  # type: ignore[arg-type]


RELU = of("activation", kind="relu")


# --- activations ------------------------------------------------------------------------------------------


def test_every_way_to_call_a_function_is_swapped_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = Functional()
    keys, untouched = list(model.state_dict()), Functional.forward
    done = apply(model, of("activation", kind="leaky_relu", slope=0.3))
    torch.manual_seed(1)
    got = model(X, temperature=2.0)
    torch.manual_seed(1)
    h = F.dropout(F.leaky_relu(model.fc1(X), 0.3), 0.2, training=True)
    h = F.leaky_relu(model.fc3(F.leaky_relu(model.fc2(h), 0.3)), 0.3)
    assert torch.equal(got, F.softmax(model.out(h) / 2.0, dim=1))
    assert torch.equal(model.eval()(X), model(X))  # self.training is still looked at
    assert list(model.state_dict()) == keys
    assert Functional.forward is untouched
    assert isinstance(model, Functional)
    done.undo()
    assert type(model) is Functional
    assert torch.equal(Functional().train()(X).shape and torch.ones(1), torch.ones(1))


@pytest.mark.parametrize("kind", [k for k in activations.BUILDABLE if k != "prelu"])
def test_a_kind_as_function_is_the_kind_as_module(kind: str) -> None:
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(activations.function(kind, 0.2)(x), activations.build(kind, 0.2)(x))
    functional, modular = FunctionalLoop(), Attributes()
    if kind != "sigmoid":
        apply(functional, of("activation", kind=kind))
        apply(modular, of("activation", kind=kind))
    assert read_anatomy(functional).layers[0].activation_name == kind
    assert read_anatomy(modular).layers[0].activation_name == kind


def test_selu_turns_dropout_into_alpha_dropout() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act, self.drop, self.b, self.c = (
                nn.Linear(8, 64), nn.Tanh(), nn.Dropout(0.4), nn.Linear(64, 64), nn.Linear(64, 3),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.drop(self.act(self.a(x)))
            return self.c(F.dropout(torch.tanh(self.b(x)), p=0.3, training=self.training))

    model = Dropped()
    apply(model, of("activation", kind="selu"))
    assert type(model.drop) is nn.AlphaDropout
    assert model.drop.p == 0.4
    seen: list[torch.Tensor] = []
    model.c.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    torch.manual_seed(2)
    model(X)
    torch.manual_seed(2)
    inner = F.alpha_dropout(
        F.selu(model.b(F.alpha_dropout(F.selu(model.a(X)), 0.4, training=True))), 0.3, training=True
    )
    assert torch.equal(seen[0], inner)
    plain = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    apply(plain, of("activation", kind="selu"))
    assert type(plain[0]) is nn.Dropout  # in front of the first layer it has no SELU to serve


def test_prelu_brings_weights_that_train_with_their_layer() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 9.0}], lr=1.0
    )
    apply(model, of("activation", kind="prelu"), optimizer=optimizer)
    assert model[1].weight.dtype == torch.float64
    assert any(p is model[1].weight for p in optimizer.param_groups[0]["params"])
    with pytest.raises(SurgeryError, match="prelu has a weight"):
        apply(FunctionalLoop(), of("activation", kind="prelu"))


def test_gates_and_softmaxes_stay() -> None:
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates, self.new, self.head = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            i, f = torch.sigmoid(self.gates(x)).chunk(2, -1)
            z = torch.sigmoid(self.new(x)).view(-1, 8)
            c = f * x + i * torch.tanh(self.new(x)) + (1 - z) * x
            return self.head(torch.tanh(c))

    model = Lstm()
    apply(model, RELU)
    i, f = torch.sigmoid(model.gates(X)).chunk(2, -1)
    z = torch.sigmoid(model.new(X))
    c = f * X + i * torch.tanh(model.new(X)) + (1 - z) * X
    assert torch.allclose(model(X), model.head(F.relu(c)))
    attentive = Attentive()
    apply(attentive, RELU)
    names = [s.name for s in read_anatomy(attentive).flow.stages if s.module is None]
    assert "relu" in names and "gelu" not in names and "softmax" in names
    with pytest.raises(SurgeryError, match="gates another signal"):
        apply(Gated(), RELU)


def test_a_factor_that_is_learned_is_no_gate() -> None:
    class ReZero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head, self.alpha = nn.Linear(8, 8), nn.Linear(8, 3), nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.alpha * torch.tanh(self.fc(x)))

    model = ReZero()
    apply(model, RELU)
    assert torch.equal(model(X), model.head(X + model.alpha * F.relu(model.fc(X))))


def test_a_model_of_bare_parameters_is_swapped() -> None:
    model = Bare()
    apply(model, RELU)
    x = X
    for weight in model.weights:
        x = F.relu(F.linear(x, weight))
    assert torch.equal(model(X), x @ model.last)


def test_a_function_kept_on_self_and_a_method_of_its_own_are_swapped() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.a, self.b, self.__c = torch.tanh, nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def __block(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.sigmoid(part) for part in (self.b(x),)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.__c(self.__block(self.act(self.a(x))))

    model = Kept()
    apply(model, RELU)
    assert torch.equal(model(X), model._Kept__c(F.relu(model.b(F.relu(model.a(X))))))
    assert model.act is torch.tanh


def test_only_the_module_that_was_meant_is_swapped() -> None:
    from treat_models import Block, BlockLoop

    model = BlockLoop(3)
    apply(model, of("activation", "blocks.1", kind="relu"))
    assert [type(b) is Block for b in model.blocks] == [True, False, True]
    assert torch.equal(model.blocks[1](X), F.relu(model.blocks[1].fc(X)))
    assert torch.equal(model.blocks[0](X), torch.sigmoid(model.blocks[0].fc(X)))


def test_a_second_swap_takes_the_place_of_the_first_and_undo_goes_back_one_by_one() -> None:
    model = FunctionalLoop()
    before = model(X)
    first = apply(model, RELU)
    middle = model(X)
    second = apply(model, of("activation", kind="tanh"))
    h = X
    for layer in model.layers:
        h = torch.tanh(layer(h))
    assert torch.equal(model(X), model.head(h))
    second.undo()
    assert torch.equal(model(X), middle)
    first.undo()
    assert torch.equal(model(X), before)


@pytest.mark.parametrize("make", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_and_pickles_keep_the_swap(make: object) -> None:
    model = Functional().eval()
    apply(model, RELU + of("residual"))
    twin = make(model)  # type: ignore[operator]
    assert isinstance(twin, Functional)
    assert torch.equal(twin(X), model(X))
    assert twin.fc1 is not model.fc1
    twin.load_state_dict(Functional().state_dict())


class Refusals:
    class Shared(nn.Module):
        """One call expression for hidden layers and for the output."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = torch.sigmoid(layer(x))
            return x

    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.acts = nn.Linear(8, 8), nn.Linear(8, 3), [lambda z: torch.sigmoid(1 * z)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.acts[0](self.a(x)))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Refusals.Shared, "one call for several purposes"),
        (Refusals.Outside, "is not written in Refusals.Outside.forward itself"),
    ],
)
def test_what_can_not_be_swapped_is_refused_with_the_way_out(build: type[nn.Module], said: str) -> None:
    model = build()
    before = model(X)
    with pytest.raises(SurgeryError, match="as a function, which can't be swapped here") as caught:
        apply(model, RELU)
    assert said in caught.value.mistake
    assert "make it a module (self.act = nn." in caught.value.mend
    assert torch.equal(model(X), before)


@pytest.mark.parametrize("build", [Functional, FunctionalLoop, Attributes, Bare])
def test_a_python_that_knows_the_line_alone_finds_the_same_calls(
    build: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = of("activation", kind="gelu") + (() if build is Bare else of("residual"))
    model = build().eval()
    twin = copy.deepcopy(model)
    apply(twin, plan)
    monkeypatch.setattr(tracing, "_position", lambda frame: (frame.f_lineno, None, None))
    apply(model, plan)
    assert torch.equal(model(X), twin(X))


@pytest.mark.parametrize("module", [False, True])
def test_what_is_changed_in_place_and_used_by_its_old_name_stays(module: bool) -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(8, 8), nn.Linear(8, 3), nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x)
            if module:
                self.act(h)
            else:
                torch.tanh_(h)
            return self.b(h)

    with pytest.raises(SurgeryError, match="changes a tensor in place that is used again"):
        apply(Overwrites(), of("activation", kind="gelu"))


def test_source_that_is_not_what_runs_is_not_trusted(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    path = tmp_path / "net_of_the_user.py"  # type: ignore[operator]
    text = (
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)\n"
        "    def forward(self, x):\n        return self.b(torch.sigmoid(self.a(x)))\n"
    )
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("net_of_the_user", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    path.write_text(text.replace("torch.sigmoid(self.a(x))", "torch.sigmoid(self.a(2 * x))"))
    with pytest.raises(SurgeryError, match="not what runs"):
        apply(module.Net(), RELU)
    path.unlink()
    import linecache

    linecache.clearcache()
    with pytest.raises(SurgeryError, match="not at hand"):
        apply(module.Net(), RELU)
    path.write_text(text)
    linecache.clearcache()
    apply(module.Net(), RELU)


# --- skips and depth --------------------------------------------------------------------------------------


def test_a_skip_goes_around_two_calls_wherever_they_stand() -> None:
    torch.manual_seed(0)
    model = Functional().eval()
    apply(model, of("residual", scale=0.5))
    h1 = X + 0.5 * torch.sigmoid(model.fc1(X))
    h2 = h1 + 0.5 * torch.tanh(model.fc2(h1))
    h3 = h2 + 0.5 * F.relu(model.fc3(h2))
    assert torch.allclose(model(X), F.softmax(model.out(h3), dim=1))
    shared = Attributes()  # one activation module for all layers
    apply(shared, of("residual"))
    h = X + shared.act(shared.fc1(X))
    assert torch.allclose(shared(X), shared.fc3(h + shared.act(shared.fc2(h))))


def test_a_skip_in_a_loop_leaves_out_what_changes_the_shape() -> None:
    class Funnel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i, layer in enumerate(self.layers):
                x = layer(x)
                if i < 3:
                    x = torch.relu(x)
            return x

    model = Funnel()
    with pytest.raises(SurgeryError, match="no block takes a skip"):
        apply(model, of("residual"))  # the last layer passes the same call and no activation

    class Loop(Funnel):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers[:-1]:
                x = layer(x)
                x = torch.relu(x)
            return self.layers[-1](x)

    loop = Loop()
    apply(loop, of("residual"))
    h = F.relu(loop.layers[0](X))
    h = h + F.relu(loop.layers[1](h))
    h = h + F.relu(loop.layers[2](h))
    assert torch.allclose(loop(X), loop.layers[3](h))


def test_a_block_that_has_a_skip_gets_no_second_one() -> None:
    class Skipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(x + torch.tanh(self.a(x)))

    with pytest.raises(SurgeryError, match="has a sum behind it already"):
        apply(Skipped(), of("residual"))
    model = FunctionalLoop()
    apply(model, of("residual"))
    with pytest.raises(SurgeryError, match="has a sum behind it already"):
        apply(model, of("residual"))


def test_norms_skips_and_another_activation_add_up_in_any_order() -> None:
    torch.manual_seed(0)
    parts = [RELU, of("layernorm"), of("residual", scale=0.5)]
    outputs = []
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        torch.manual_seed(0)
        model = FunctionalLoop()
        apply(model, [p for i in order for p in parts[i]])
        outputs.append(model(X))
    h, plain = X, model
    for layer in plain.layers:
        h = h + 0.5 * F.relu(layer(h))
    for got in outputs:
        assert torch.allclose(got, plain.head(h), atol=1e-6)


def test_layers_are_dropped_with_their_calls() -> None:
    torch.manual_seed(0)
    model = Functional().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    done = apply(model, of("simplify", layers=2), optimizer=optimizer)
    assert [n for n, _ in model.named_children()] == ["fc1", "out"]
    assert torch.allclose(model(X), F.softmax(model.out(torch.sigmoid(model.fc1(X))), dim=1))
    assert len(optimizer.param_groups[0]["params"]) == 4
    done.undo()
    assert [n for n, _ in model.named_children()] == ["fc1", "fc2", "fc3", "out"]
    loop = FunctionalLoop(5)
    apply(loop, of("simplify", layers=3))
    assert len(loop.layers) == 2
    assert torch.equal(loop(X), loop.head(torch.sigmoid(loop.layers[1](torch.sigmoid(loop.layers[0](X))))))


def test_a_layer_that_others_count_on_is_not_dropped() -> None:
    class Zipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
            self.norms = nn.ModuleList([nn.LayerNorm(8) for _ in range(4)])
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i, norm in enumerate(self.norms):
                x = torch.tanh(self.layers[min(i, len(self.layers) - 1)](norm(x)))
            return self.head(x)

    model = Zipped()
    with pytest.raises(SurgeryError, match="forward pass"):
        apply(model, of("simplify", layers=3))
    assert len(model.layers) == 4


class Twins(nn.Module):
    """One tower for two inputs, as container and as code."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, nn.Linear(16, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        both = [self.tower(part) for part in (a, a.flip(0) if b is None else b)]
        return self.head(torch.cat(both, 1))


@pytest.mark.parametrize("as_code", [False, True])
def test_a_tower_that_runs_for_two_inputs_is_treated_as_one_is(as_code: bool) -> None:
    torch.manual_seed(0)
    if as_code:

        class Tower(FunctionalLoop):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = torch.tanh(self.layers[0](x))
                x = torch.tanh(self.layers[1](x))
                return torch.tanh(self.layers[2](x))

        tower: nn.Module = Tower(3)
        del tower.head
        layers = list(tower.layers)  # type: ignore[arg-type]
    else:
        layers = [nn.Linear(8, 8) for _ in range(3)]
        tower = nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())])
    model = Twins(tower)

    def twin(depth: int, scale: float, x: torch.Tensor) -> torch.Tensor:
        for layer in layers[:depth]:
            x = scale * x + torch.tanh(layer(x))
        return x

    for plan, depth, scale in ((of("residual"), 3, 1.0), (of("simplify", layers=3), 2, 0.0)):
        done = apply(model, plan)
        wanted = model.head(torch.cat([twin(depth, scale, X), twin(depth, scale, X.flip(0))], 1))
        assert torch.allclose(model(X), wanted, atol=1e-6)
        done.undo()
    apply(model, of("batchnorm"))
    assert [layer.normed for layer in read_anatomy(model).layers] == [True] * 3 + [False]


# --- in the middle of a call ------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [Functional, FunctionalLoop, Attributes, Strict])
def test_a_forward_pre_hook_that_treats_has_the_very_call_treated(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = build().eval()
    plan = of("activation", kind="elu") + (of("residual") if build is not Strict else ())
    twin = copy.deepcopy(model)
    apply(twin, plan, batch=X)
    begun: list[object] = []

    def treat(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if not begun:
            begun.append(None)
            begun[0] = apply(module, plan, batch=args[0])

    own = build.forward.__code__
    model.register_forward_pre_hook(treat)
    assert torch.equal(model(X), twin(X))
    assert build.forward.__code__ is own
    assert torch.equal(model(X), twin(X))
    begun[0].undo()  # type: ignore[attr-defined]
    assert type(model) is build


def test_a_model_that_needs_a_batch_to_be_read_waits_for_it() -> None:
    torch.manual_seed(0)
    model, twin = Strict(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    twin = copy.deepcopy(model)
    done = apply_when_ready(model, RELU, optimizer=optimizer)
    assert done.pending
    apply(twin, RELU, batch=X)
    assert torch.equal(model(X), twin(X))
    assert not done.pending
    done.undo()
    assert type(model) is Strict
    with pytest.raises(SurgeryError):
        apply_when_ready(Strict(), RELU)  # an optimizer that is built later could miss new parameters
    with pytest.raises(SurgeryError, match="no module"):
        apply_when_ready(Strict(), of("activation", "nowhere", kind="relu"), optimizer=optimizer)
