"""A script that updates its weights by hand is treated, at the rates of its trials, as its twin with an optimizer is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from unvanish.errors import UnvanishError
from unvanish.launch.by_hand import HandSurgeon, surgeon_class
from unvanish.launch.surgeon import Surgeon
from unvanish.launch.trial import run_trial
from unvanish.schema.treatment import Prescription
from unvanish.treatment.candidate import of
from unvanish.treatment.recipe import fingerprint, recipe_for
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

HEAD = """
import torch
from torch import nn
torch.manual_seed(4)
x = torch.randn(256, 8)
y = (x[:, 0] > 0).long()
net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
{before}
for step in range(30):
    rows = torch.randint(0, 256, (32,))
    loss = nn.functional.cross_entropy({call}, y[rows])
    {update}
"""
SGD = (
    "optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum={momentum})",
    "optimizer.zero_grad(); loss.backward(); optimizer.step()",
)
LOOP = """net.zero_grad(); loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.5 * p.grad"""
DATA = """net.zero_grad(); loss.backward()
    for p in net.parameters():
        p.data = p.data - 0.5 * p.grad"""
GRAD = """
    with torch.no_grad():
        for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters()))):
            p.copy_(p - 0.5 * g)"""
LISTED = """loss.backward()
    with torch.no_grad():
        for p in params:
            p -= 0.5 * p.grad
            p.grad = None"""
MOMENTUM = """net.zero_grad(); loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            v[p] = 0.9 * v.get(p, 0) + p.grad
            p -= 0.5 * v[p]"""
RATES = """net.zero_grad(); loss.backward()
    with torch.no_grad():
        for p, rate in zip(net.parameters(), rates):
            p -= rate * p.grad"""
MAKE_LIST = "params = list(net.parameters())"
TANH = (of("activation", kind="tanh"), of("init", scheme="xavier"))
NORM = (of("batchnorm"),)


@pytest.fixture(scope="module")
def twins() -> dict[object, tuple[float, ...]]:
    """Losses of the twins that have run."""
    return {}


def trial(
    folder: Path,
    update: str,
    *prescriptions: Prescription,
    before: str = "",
    call: str = "net(x[rows])",
    **more: object,
) -> TrialOutcome:
    (folder / "s.py").write_text(HEAD.format(before=before, update=update, call=call))
    layers = [nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2)]
    options: dict[str, object] = {
        "mark": fingerprint(nn.Sequential(*layers)),
        "by_hand": True,
        "steps": 12,
        **more,
    }
    return run_trial(
        TrialSpec(
            candidate="a", prescriptions=prescriptions, seed=0,
            target=Target(program=str(folder / "s.py"), directory=str(folder)), **options,  # type: ignore[arg-type]
        )
    )  # fmt: skip


def twin(folder: Path, *prescriptions: Prescription, momentum: float = 0.0, **more: object) -> TrialOutcome:
    before, update = SGD
    return trial(
        folder, update, *prescriptions, before=before.format(momentum=momentum), by_hand=False, **more
    )


@pytest.mark.parametrize(
    ("update", "before", "momentum"),
    [(LOOP, "", 0.0), (DATA, "", 0.0), (GRAD, "", 0.0), (LISTED, MAKE_LIST, 0.0), (MOMENTUM, "v = {}", 0.9)],
    ids=["in place", "data", "autograd.grad and copy_", "a list", "momentum"],
)
def test_the_losses_are_those_of_torchs_optimizer(
    tmp_path: Path, twins: dict[object, tuple[float, ...]], update: str, before: str, momentum: float
) -> None:
    for plan, factor in (((), 0.3), (TANH, 1.0), (NORM, 0.3)):
        if plan == NORM and before == MAKE_LIST:
            continue
        made = trial(tmp_path, update, *plan, before=before, learning_rate_factor=factor)
        key = len(plan), factor, momentum
        if key not in twins:
            twins[key] = twin(tmp_path, *plan, momentum=momentum, learning_rate_factor=factor).losses
        assert made.error is None and len(made.losses) == 12
        assert made.losses == pytest.approx(twins[key], rel=1e-5)


def test_a_prescribed_rate_reaches_new_parameters_and_the_gain_is_that_of_the_first_step(
    tmp_path: Path,
) -> None:
    plan = (of("learning_rate", factor=3.0), *NORM)
    made, wanted = trial(tmp_path, LOOP, *plan, trace=True), twin(tmp_path, *plan, trace=True)
    assert made.losses == pytest.approx(wanted.losses, rel=1e-5)
    assert made.measured_gain == pytest.approx(wanted.measured_gain, rel=1e-4)
    assert made.learning_rate is None


def test_a_trial_ends_early_when_its_loss_has_fallen_or_is_lost(tmp_path: Path) -> None:
    fallen = trial(tmp_path, LOOP, *NORM, steps=29, fallen_to=5.0)
    assert fallen.error is None and len(fallen.losses) == 20
    lost = trial(tmp_path, LOOP.replace("0.5", "-20.0"), steps=29)
    assert lost.diverged and len(lost.losses) == 20


def test_what_needs_an_optimizer_says_so(tmp_path: Path) -> None:
    for plan in (of("clip", norm=1.0), of("precision", mode="loss_scaling")):
        error = trial(tmp_path, LOOP, plan).error
        assert error is not None and "there is no optimizer whose step this could be put in front of" in error


def test_new_norms_that_a_list_made_before_lacks_stay_as_they_begin(tmp_path: Path) -> None:
    outcome = trial(tmp_path, LISTED, *NORM, before=MAKE_LIST)
    assert outcome.error is None and len(outcome.losses) == 12


def test_weights_that_the_script_s_own_update_leaves_out_are_a_fault(tmp_path: Path) -> None:
    rates = "rates = [0.5 for _ in net.parameters()]"
    error = trial(tmp_path, RATES, *NORM, before=rates).error  # zip ends before the last layers
    assert error is not None and "leaves out" in error and "4.weight" in error
    assert trial(tmp_path, RATES, *TANH, before=rates).error is None


@pytest.mark.parametrize("plan", [TANH, NORM], ids=["activation", "norms"])
def test_what_the_script_leaves_out_without_a_treatment_too_is_no_fault(
    tmp_path: Path, plan: tuple[Prescription, ...]
) -> None:
    head = LOOP.replace("net.parameters()", "net.get_submodule('4').parameters()")
    outcome = trial(tmp_path, head, *plan)
    assert outcome.error is None and len(outcome.losses) == 12


def test_a_layer_that_is_taken_by_its_number_which_norms_shift(tmp_path: Path) -> None:
    error = trial(tmp_path, LOOP.replace("net.parameters()", "net[4].parameters()"), *NORM).error
    assert error is not None and "leaves out 4.weight, 4.bias" in error and "by their numbers" in error


ASKED = """for p, g in zip(params, torch.autograd.grad(loss, params, allow_unused=True)):
        p.data -= 0.1 * (g if g is not None else 0 * p)"""
RECURRENT = """
import torch
from torch import nn
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.RNN(3, 6, batch_first=True)
        self.head = nn.Linear(6, 1)
    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])
net = Net()
params = list(net.parameters())
for step in range(20):
    x = torch.randn(8, 5, 3)
    loss = (net(x) - x.sum((1, 2))[:, None]).square().mean()
    {update}
"""


@pytest.mark.parametrize("update", [LISTED, ASKED], ids=["backward", "autograd.grad"])
def test_parameters_that_were_replaced_and_are_in_a_list_made_before(tmp_path: Path, update: str) -> None:
    update = update.replace("p -= 0.5 * p.grad", "p -= 0.5 * (p.grad if p.grad is not None else 0 * p)")
    (tmp_path / "r.py").write_text(RECURRENT.format(update=update))
    target = Target(program=str(tmp_path / "r.py"), directory=str(tmp_path))
    spec = TrialSpec(
        candidate="gru", prescriptions=(of("gated_rnn", cell="gru"),), target=target, seed=0, steps=10, by_hand=True
    )  # fmt: skip
    error = run_trial(spec).error
    assert error is not None and "leaves out cell." in error


def test_an_error_of_the_script_is_told_with_what_may_have_caused_it(tmp_path: Path) -> None:
    update = LOOP.replace("0.5 * p.grad", "0.5 * v.pop(0).add_(p.grad)")
    before = "v = [torch.zeros_like(p) for _ in range(30) for p in net.parameters()]"
    assert trial(tmp_path, update, *TANH, before=before).error is None
    error = trial(tmp_path, update, *NORM, before=before).error
    assert error is not None and error.startswith("RuntimeError") and "fits no longer" in error


def test_a_model_that_is_called_in_parts_or_not_as_a_module(tmp_path: Path) -> None:
    parts = "net[4](net[3](net[2](net[1](net[0](x[rows])))))"
    drawn = trial(tmp_path, LOOP, of("init", scheme="xavier"), call=parts)
    assert drawn.error is None
    assert drawn.losses == pytest.approx(twin(tmp_path, of("init", scheme="xavier")).losses, rel=1e-5)
    waits = trial(tmp_path, LOOP, of("init", scheme="lsuv"), call=parts).error
    assert waits is not None and "never came" in waits
    bare = "torch.sigmoid(x[rows] @ net[0].weight.T + net[0].bias) @ net[4].weight.T"
    never = trial(tmp_path, LOOP.replace("net.parameters()", "(net[0].weight,)"), *TANH, call=bare).error
    assert never is not None and "never called its model as a module" in never


def test_nothing_is_treated_before_the_training() -> None:
    model, other = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2)), nn.Linear(4, 2)
    faults: list[UnvanishError] = []
    work = HandSurgeon(NORM, mark=fingerprint(model), on_fault=faults.append)
    x = torch.randn(5, 4)
    with work.at_work():
        with torch.no_grad():
            model(x)
        other(x)
        assert work.treated is None
        model(x)
    assert work.treated is model and not faults
    assert any(isinstance(m, nn.BatchNorm1d) for m in model.modules())


def test_a_recipe_says_who_carries_it_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    assert surgeon_class(by_hand=False, loose=False) is Surgeon
    recipe = recipe_for(model, (*NORM, of("learning_rate", factor=0.5)), by_hand=True)
    kind = surgeon_class(by_hand=recipe.by_hand, loose=recipe.loose)
    assert kind is HandSurgeon
    work = kind.for_recipe(recipe, on_fault=lambda error: pytest.fail(str(error)))
    x = torch.randn(5, 4)
    with work.at_work():
        loss = model(x).square().mean()
        first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    work.end()
    for undo in work._undone:
        undo.undo()
    assert work.done and work.fault is None
    assert len(first) == 6
