"""Surgery and its undo: bit-exact on random nets, optimizers kept true, refusals."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from torch import nn
from treat_models import Attributes, Block, BlockLoop, Branches, Conv, FunctionalLoop, Tied, chain

from unvanish.errors import SurgeryError
from unvanish.schema.treatment import Prescription
from unvanish.treatment.operate import apply, apply_when_ready
from unvanish.treatment.surgery import Surgery

RELU = Prescription(treatment="activation", parameters={"kind": "relu"})
PLANS = {
    "relu": (RELU,),
    "relu_he": (RELU, Prescription(treatment="init", parameters={"scheme": "he"})),
    "leaky": (Prescription(treatment="activation", parameters={"kind": "leaky_relu", "slope": 0.2}),),
    "xavier": (Prescription(treatment="init", parameters={"scheme": "xavier"}),),
    "lsuv": (Prescription(treatment="init", parameters={"scheme": "lsuv"}),),
    "batchnorm": (Prescription(treatment="batchnorm"),),
    "layernorm": (Prescription(treatment="layernorm"),),
    "residual": (Prescription(treatment="residual"),),
    "norm_then_skip": (Prescription(treatment="batchnorm"), Prescription(treatment="residual")),
    "simplify": (Prescription(treatment="simplify", parameters={"layers": 2}),),
    "rate": (Prescription(treatment="learning_rate", parameters={"factor": 3.0}),),
}


def _trained(model: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Two steps, so that there are gradients and moments."""
    for _ in range(2):
        optimizer.zero_grad()
        model(x).pow(2).sum().backward()
        optimizer.step()


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Everything that an undo has to bring back, with identities."""
    return {
        "tree": [(name, id(m), m.training) for name, m in model.named_modules(remove_duplicate=False)],
        "names": [
            (name, id(p), p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)
        ],
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "groups": [[id(p) for p in g["params"]] for g in optimizer.param_groups],
        "rates": [g["lr"] for g in optimizer.param_groups],
        "moments": {
            id(p): {k: torch.as_tensor(v).clone() for k, v in s.items()} for p, s in optimizer.state.items()
        },
    }


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


@st.composite
def nets(draw: st.DrawFn) -> nn.Module:
    """Random chains: nested, with norms and dropout, other activations, shared ones, some layers frozen."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    acts = draw(st.lists(st.sampled_from([nn.Sigmoid, nn.Tanh, nn.ELU]), min_size=1, max_size=2))
    shared = acts[0]()
    layers: list[nn.Module] = [nn.Linear(8, 8), acts[0]()]
    for kind in draw(
        st.lists(
            st.sampled_from(["pair", "nested", "drop", "shared", "frozen", "block"]), min_size=2, max_size=5
        )
    ):
        linear = nn.Linear(8, 8, bias=draw(st.booleans()))
        if kind == "nested":
            layers.append(nn.Sequential(linear, acts[-1]()))
        elif kind == "block":
            layers.append(Block())
        else:
            linear.requires_grad_(kind != "frozen")
            middle = [nn.Dropout(0.5)] if kind == "drop" else []
            layers += [linear, *middle, shared if kind == "shared" else acts[-1]()]
    return nn.Sequential(*layers, nn.Linear(8, 3))


@settings(max_examples=40, deadline=None)
@given(model=nets(), plan=st.sampled_from(sorted(PLANS)), double=st.booleans(), eval_mode=st.booleans())
def test_apply_keeps_the_optimizer_true_and_undo_is_bit_exact(
    model: nn.Module, plan: str, double: bool, eval_mode: bool
) -> None:
    model = model.double() if double else model
    x = torch.randn(16, 8, dtype=torch.float64 if double else torch.float32)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    _trained(model, x, optimizer)
    model.train(not eval_mode)
    before, rng = _state(model, optimizer), torch.get_rng_state()
    torch.manual_seed(3)
    output = model(x)
    torch.set_rng_state(rng)
    try:
        done = apply(model, PLANS[plan], optimizer=optimizer, batch=x)
    except SurgeryError:
        event("refused")
        assert _same(_state(model, optimizer), before)
        return
    event("treated")
    assert torch.equal(torch.get_rng_state(), rng)
    assert not _same(_state(model, optimizer), before)
    held = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.dtype == x.dtype for p in model.parameters())
    assert all(m.training is model.training for m in model.modules())
    done.undo()
    done.undo()
    assert _same(_state(model, optimizer), before)
    torch.manual_seed(3)
    assert torch.equal(model(x), output)


@pytest.mark.parametrize("build", [Attributes, FunctionalLoop, BlockLoop, Conv, Tied, Branches])
@pytest.mark.parametrize("plan", sorted(PLANS))
def test_every_style_is_treated_or_refused_and_comes_back(build: type[nn.Module], plan: str) -> None:
    torch.manual_seed(0)
    model = build()
    x = torch.randn(16, 1, 8, 8) if build is Conv else torch.randn(16, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    _trained(model, x, optimizer)
    before = _state(model, optimizer)
    try:
        done = apply(model, PLANS[plan], optimizer=optimizer, batch=x)
    except SurgeryError:
        assert _same(_state(model, optimizer), before)
        return
    done.undo()
    assert _same(_state(model, optimizer), before)
    done = apply(model, PLANS[plan], optimizer=optimizer, batch=x)
    _trained(model, x, optimizer)  # the treated net trains
    done.undo()
    after = _state(model, optimizer)
    assert _same(
        [after["tree"], after["groups"], after["rates"]], [before["tree"], before["groups"], before["rates"]]
    )


EXPECTED = {  # what can be done on the module tree; the rest is refused with its reason
    Attributes: set(PLANS),
    FunctionalLoop: set(PLANS),
    BlockLoop: set(PLANS),
    Branches: set(PLANS),
    Tied: set(PLANS),
}


@pytest.mark.parametrize("build", list(EXPECTED))
def test_which_style_takes_which_treatment(build: type[nn.Module]) -> None:
    taken = set()
    for name, plan in PLANS.items():
        model = build()
        try:
            apply(
                model, plan, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), batch=torch.randn(16, 8)
            )
            taken.add(name)
        except SurgeryError:
            pass
    assert taken == EXPECTED[build]


def test_an_alias_is_replaced_at_every_path() -> None:
    model = Attributes()
    model.other_name = model.act
    apply(model, (RELU,))
    assert isinstance(model.act, nn.ReLU)
    assert model.other_name is model.act


def test_ties_hold_after_a_new_init() -> None:
    model = Tied()
    apply(model, PLANS["xavier"])
    assert model.net[0].weight is model.net[2].weight


def test_new_parameters_join_the_group_of_their_layer() -> None:
    model = chain(3)
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2:].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    apply(model, PLANS["batchnorm"], optimizer=optimizer)
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm1d)}
    assert list(norms) == ["0_norm", "2_norm"]
    inside = [{id(p) for p in g["params"]} for g in optimizer.param_groups]
    assert id(norms["0_norm"].weight) in inside[0]
    assert id(norms["2_norm"].weight) in inside[1]


def test_param_names_of_the_optimizer_stay_in_step() -> None:
    model = chain(3)
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    if "param_names" not in optimizer.param_groups[0]:
        pytest.skip("this torch keeps no names in optimizers")
    apply(model, PLANS["batchnorm"], optimizer=optimizer)
    names = {id(p): n for n, p in model.named_parameters()}
    group = optimizer.param_groups[0]
    assert [names[id(p)] for p in group["params"]] == group["param_names"]


def test_what_was_redrawn_forgets_its_moments_and_the_rest_keeps_them() -> None:
    model = chain(3)
    optimizer = torch.optim.Adam(model.parameters())
    _trained(model, torch.randn(4, 8), optimizer)
    apply(
        model,
        (Prescription(treatment="init", target="0", parameters={"scheme": "xavier"}),),
        optimizer=optimizer,
    )
    assert model[0].weight not in optimizer.state
    assert model[0].weight.grad is None
    assert model[2].weight in optimizer.state


def test_old_checkpoints_find_their_keys() -> None:
    model = chain(4)
    untreated = {k: v.clone() for k, v in model.state_dict().items()}
    done = apply(model, PLANS["norm_then_skip"])
    keys = done.key_map()
    assert keys["2.weight"] == "2.body.0.weight"
    for old, new in keys.items():
        assert torch.equal(model.state_dict()[new], untreated[old])


def test_a_failure_half_way_takes_all_back() -> None:
    model = chain(3)
    before = [id(m) for m in model.modules()]
    impossible = Prescription(treatment="simplify", parameters={"layers": 50})
    with pytest.raises(SurgeryError, match="not more than 50"):
        apply(model, (RELU, Prescription(treatment="batchnorm"), impossible))
    assert [id(m) for m in model.modules()] == before


def test_python_and_numpy_random_states_are_left_alone() -> None:
    numpy = pytest.importorskip("numpy")
    state, numpy_state = random.getstate(), numpy.random.get_state()[1].copy()
    apply(chain(4), PLANS["lsuv"], batch=torch.randn(8, 8))
    assert random.getstate() == state
    assert (numpy.random.get_state()[1] == numpy_state).all()


def test_lsuv_waits_for_the_first_training_batch() -> None:
    model = chain(4)
    weight = model[0].weight.clone()
    done = apply_when_ready(model, PLANS["lsuv"])
    model.eval()
    with torch.no_grad():
        model(torch.randn(8, 8))
    assert done.pending
    assert torch.equal(model[0].weight, weight)
    out = model.train()(torch.randn(64, 8))
    assert not done.pending
    assert float(out.detach().std()) == pytest.approx(1.0, abs=1e-4)
    done.undo()
    assert torch.equal(model[0].weight, weight)


def test_removing_a_wait_leaves_no_hook() -> None:
    model = chain(4)
    apply_when_ready(model, PLANS["lsuv"]).undo()
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: nn.DataParallel(chain()), "DataParallel"),
        (lambda: nn.Sequential(nn.DataParallel(chain())), "the part '0'"),
        (lambda: torch.compile(chain()), "OptimizedModule"),
        pytest.param(
            lambda: torch.jit.script(chain()),
            "ScriptModule",
            marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"),
        ),
        (lambda: nn.Sequential(nn.LazyLinear(4), nn.Sigmoid(), nn.Linear(4, 1)), "lazy"),
        (lambda: nn.Linear, "the class Linear"),
        (lambda: "net", "a str"),
    ],
)
def test_refusals_name_the_mistake_and_the_mend(build: object, said: str) -> None:
    with pytest.raises(SurgeryError, match=said) as caught:
        apply(build(), (RELU,))  # type: ignore[operator]
    assert caught.value.mend


def test_a_module_compiled_in_place_is_refused() -> None:
    model = chain()
    model.compile()
    with pytest.raises(SurgeryError, match="compiled in place"):
        apply(model, (RELU,))


def test_ddp_is_refused() -> None:
    class DistributedDataParallel(nn.Module):  # the name and the home are what is looked at
        __module__ = "torch.nn.parallel.distributed"

    with pytest.raises(SurgeryError, match="before wrapping"):
        apply(DistributedDataParallel(), (RELU,))


@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_reparametrised_weight_is_not_written_in_vain(norm: object) -> None:
    model = chain()
    norm(model[2])  # type: ignore[operator]
    with pytest.raises(SurgeryError, match="parametrization"):
        apply(model, PLANS["xavier"])


def test_the_root_itself_is_not_replaced() -> None:
    root = nn.Sigmoid()
    with pytest.raises(SurgeryError, match="not a part"):
        Surgery(root).replace(root, nn.ReLU())


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(SurgeryError, match="optimizer"):
        apply(chain(), (RELU,), optimizer=["sgd"])  # type: ignore[list-item]


@pytest.mark.parametrize("path", ["nowhere", "0.weight", "__class__", "../x"])
def test_an_unknown_target_is_refused(path: str) -> None:
    with pytest.raises(SurgeryError, match="no module"):
        apply(chain(), (Prescription(treatment="batchnorm", target=path),))


def test_watching_hooks_see_no_symbolic_values() -> None:
    seen: list[type] = []
    handle = nn.modules.module.register_module_forward_hook(lambda _m, _i, out: seen.append(type(out)))
    try:
        apply(BlockLoop(), PLANS["batchnorm"])
    finally:
        handle.remove()
    assert set(seen) <= {torch.Tensor}


def test_a_trace_leaves_nothing_on_the_users_model() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.last = chain(), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = self.net(x)
            return self.last

    model = Remembers()
    apply(model, (RELU,))
    assert model.last is None
