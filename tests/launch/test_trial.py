"""Trials: the user's script, treated in this process; the same data for every candidate."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unvanish.launch.trial import run_trial
from unvanish.schema.treatment import Prescription
from unvanish.treatment.recipe import fingerprint_of
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

SCRIPT = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(4)
x = torch.randn(256, 8)
y = (x[:, 0] > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
seen = open(sys.argv[1], "w")
for epoch in range(5):
    for a, b in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        optimizer.step()
        print(a.sum().item(), file=seen, flush=True)
        print("%.17g" % loss.item(), flush=True)
"""


def _trial(
    folder: Path, name: str, *prescriptions: Prescription, **options: object
) -> tuple[TrialOutcome, list[str]]:
    (folder / "s.py").write_text(SCRIPT)
    target = Target(program=str(folder / "s.py"), arguments=(str(folder / name),), directory=str(folder))
    spec = TrialSpec(
        candidate=name,
        prescriptions=prescriptions,
        target=target,
        **{"seed": 0, "steps": 20, **options},  # type: ignore[arg-type]
    )
    outcome = run_trial(spec)
    return outcome, (folder / name).read_text().split() if (folder / name).exists() else []


def test_the_untreated_trial_is_the_script_itself(tmp_path: Path) -> None:
    outcome, _ = _trial(tmp_path, "a", trace=True)
    plain = subprocess.run(
        [sys.executable, "s.py", "b"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )  # fmt: skip
    assert [float(v) for v in plain.stdout.split()[:20]] == pytest.approx(list(outcome.losses), rel=1e-6)
    assert outcome.error is None and len(outcome.losses) == 20
    assert outcome.depth == 3 and outcome.learning_rate == 0.1
    assert outcome.measured_gain == pytest.approx(0.02, rel=0.6)
    assert outcome.chance == pytest.approx(0.68, abs=0.03)


def test_every_candidate_sees_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    _, plain = _trial(tmp_path, "a")
    treated, batches = _trial(
        tmp_path, "b",
        Prescription(treatment="activation", parameters={"kind": "relu"}),
        Prescription(treatment="init", parameters={"scheme": "he"}),
    )  # fmt: skip
    _, data_driven = _trial(tmp_path, "c", Prescription(treatment="init", parameters={"scheme": "lsuv"}))
    assert treated.error is None
    assert plain == batches == data_driven


def test_a_seed_gives_other_weights_and_batches_and_is_repeatable(tmp_path: Path) -> None:
    first, a = _trial(tmp_path, "a", seed=1)
    again, b = _trial(tmp_path, "b", seed=1)
    other, c = _trial(tmp_path, "c", seed=2)
    assert first.losses == again.losses and a == b
    assert first.losses != other.losses and a != c


def test_the_rate_is_scaled_where_the_optimizer_is_built(tmp_path: Path) -> None:
    outcome, _ = _trial(tmp_path, "a", learning_rate_factor=3.0)
    assert outcome.learning_rate == pytest.approx(0.3)


def test_what_goes_wrong_is_an_outcome(tmp_path: Path) -> None:
    refused, _ = _trial(
        tmp_path, "a", Prescription(treatment="simplify", target="nowhere", parameters={"layers": 2})
    )
    assert refused.error is not None and "nowhere" in refused.error
    (tmp_path / "t.py").write_text("raise OSError('no data here')")
    target = Target(program=str(tmp_path / "t.py"), directory=str(tmp_path))
    broken = run_trial(TrialSpec(candidate="x", prescriptions=(), target=target, seed=0))
    assert broken.error == "OSError: no data here"
    (tmp_path / "u.py").write_text("print('nothing')")
    idle = run_trial(
        TrialSpec(
            candidate="x",
            prescriptions=(),
            target=Target(program=str(tmp_path / "u.py"), directory=str(tmp_path)),
            seed=0,
        )
    )
    assert idle.error == "the script made no optimizer step"


def test_the_process_is_as_it_was(tmp_path: Path) -> None:
    before = (
        sys.argv,
        list(sys.path),
        Path.cwd(),
        torch.optim.Optimizer.__init__,
        torch.manual_seed,
        random.seed,
    )
    _trial(tmp_path, "a")
    assert before == (
        sys.argv,
        list(sys.path),
        Path.cwd(),
        torch.optim.Optimizer.__init__,
        torch.manual_seed,
        random.seed,
    )


def test_a_trial_that_is_asked_to_draws_its_signal_and_trains_as_without(tmp_path: Path) -> None:
    plain, _ = _trial(tmp_path, "a", trace=True)
    drawn, _ = _trial(tmp_path, "b", trace=True, draw=True)
    assert plain.signal is None
    assert drawn.losses == plain.losses
    assert (drawn.measured_gain, drawn.predicted_gain) == (plain.measured_gain, plain.predicted_gain)
    assert drawn.signal is not None
    assert drawn.signal.steps[:4] == (0, 1, 2, 3) and drawn.signal.steps[-1] >= 11
    assert len(drawn.signal.rows) == plain.depth == 3
    first = [row[0] for row in drawn.signal.cells]
    assert first[-1] == 0.0 and first[0] < first[1] < -0.5, "sigmoids take of it, layer by layer"


BESIDE = """
import calendar, copy, html
import torch
from torch import nn
assert calendar.MINE and html.escape("<") == "&lt;"
net = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))
trained = copy.deepcopy(net).double()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(30):
    trained.zero_grad()
    trained(torch.randn(4, 4).double()).sum().backward()
    for own, other in zip(net.parameters(), trained.parameters()):
        own.grad = other.grad.float()
        other.data.copy_(own.data)
    optimizer.step()
    loss = nn.functional.mse_loss(net(torch.ones(1, 4)).detach(), torch.zeros(1, 2))
"""


def test_a_treated_model_that_is_not_trained_is_an_error_and_modules_beside_the_script_are_its_own(
    tmp_path: Path,
) -> None:
    import calendar

    (tmp_path / "calendar.py").write_text("MINE = True\n")
    (tmp_path / "s.py").write_text(BESIDE)
    target = Target(program="s.py", directory=str(tmp_path))
    xavier = (Prescription(treatment="init", parameters={"scheme": "xavier"}),)
    outcome = run_trial(TrialSpec(candidate="x", prescriptions=xavier, target=target, seed=0, steps=20))
    assert outcome.error is not None and "takes no part in the training" in outcome.error
    assert sys.modules["calendar"] is calendar and not hasattr(calendar, "MINE")


def test_what_a_script_said_last_stands_beside_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("import sys\nprint('no data here', file=sys.stderr)\nsys.exit(3)\n")
    outcome = run_trial(
        TrialSpec(
            candidate="x", prescriptions=(), target=Target(program="s.py", directory=str(tmp_path)), seed=0
        )
    )
    assert outcome.error == "the script ended with exit code 3 (no data here)"


def test_an_isolated_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("the user's")
    engine = LocalEngine(1, "unvanish.launch.trial:run_isolated_trial")
    (tmp_path / "s.py").write_text(SCRIPT)
    target = Target(program="s.py", arguments=("log",), directory=str(tmp_path))
    specs = [TrialSpec(candidate=c, prescriptions=(), target=target, seed=0, steps=20) for c in "ab"]
    before = (tmp_path / "log").stat().st_mtime_ns
    with engine:
        outcomes = list(engine.run(specs))
    assert [o.error for o in outcomes] == [None, None] and outcomes[0].losses == outcomes[1].losses
    assert (tmp_path / "log").read_text() == "the user's" and (tmp_path / "log").stat().st_mtime_ns == before


HEAD_START = """
import torch
from torch import nn
torch.manual_seed(0)
first = nn.Linear(4, 4)
second = nn.Linear(3, 3)
one, other = torch.optim.SGD(first.parameters(), lr=0.1), torch.optim.SGD(second.parameters(), lr=0.1)

def train(net, optimizer, width):
    loss = (net(torch.randn(8, width)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

for step in range(60):
    train(first, one, 4)
for step in range(60):
    train(first, one, 4)
    train(second, other, 3)
"""


@pytest.mark.parametrize("steps", [7, 25])
def test_steps_are_those_of_the_model_that_is_meant(tmp_path: Path, steps: int) -> None:
    (tmp_path / "s.py").write_text(HEAD_START)
    shapes = [("weight", (3, 3)), ("bias", (3,))]
    init = (Prescription(treatment="init", parameters={"scheme": "orthogonal"}),)
    for prescriptions in ((), init):
        spec = TrialSpec(
            candidate="x", prescriptions=prescriptions, target=Target(program=str(tmp_path / "s.py")), seed=0,
            steps=steps, model="second", mark=fingerprint_of(shapes),
        )  # fmt: skip
        outcome = run_trial(spec)
        assert outcome.error is None
        assert len(outcome.losses) == steps


GROWING = """
import torch
from torch import nn
torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList()
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x).tanh()
        return self.head(x)

def fit(net, steps):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        loss = (net(torch.randn(8, 4)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

net = Net()
fit(net, 20)
net.blocks.append(nn.Linear(4, 4))
fit(net, 40)
"""


def test_a_net_that_grows_is_treated_when_it_has_grown(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(GROWING)
    shapes = [
        ("head.weight", (1, 4)),
        ("head.bias", (1,)),
        ("blocks.0.weight", (4, 4)),
        ("blocks.0.bias", (4,)),
    ]
    spec = TrialSpec(
        candidate="x", prescriptions=(Prescription(treatment="init", parameters={"scheme": "orthogonal"}),),
        target=Target(program=str(tmp_path / "s.py")), seed=0, steps=40, mark=fingerprint_of(shapes),
    )  # fmt: skip
    outcome = run_trial(spec)
    assert outcome.error is None and len(outcome.losses) == 40


def test_what_the_watch_works_out_itself_is_no_loss_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(
        HEAD_START.replace(
            "(net(torch.randn(8, width)) ** 2).mean()",
            "nn.functional.smooth_l1_loss(net(torch.randn(8, width)), torch.randn(8, width))",
        )
    )
    target = Target(program=str(tmp_path / "s.py"))
    outcome = run_trial(
        TrialSpec(candidate="x", prescriptions=(), target=target, seed=0, steps=20, trace=True)
    )
    assert outcome.error is None and outcome.chance is not None
    assert outcome.held_out == ()
