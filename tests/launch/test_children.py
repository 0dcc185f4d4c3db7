"""Processes that a watched script starts and that train: found with no change to the script, kept in one run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from families import DDP, TORCHRUN, TRAIN, children, start, the_run, watched

from unvanish import launch
from unvanish.session import load

PROCESSES = """
if __name__ == "__main__":
    import multiprocessing as mp
    context = mp.get_context({how!r})
    several = [context.Process(target=train, args=(25, 4 + i)) for i in range(2)]
    [p.start() for p in several]; [p.join() for p in several]
    print([p.exitcode for p in several], flush=True)
"""
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("fork", marks=posix),
        pytest.param("spawn", marks=pytest.mark.slow),
        pytest.param("forkserver", marks=[posix, pytest.mark.slow]),
    ],
)
def test_children_of_multiprocessing_that_train_stand_side_by_side(how: str, tmp_path: Path) -> None:
    done = watched(tmp_path, TRAIN + PROCESSES.format(how=how), "--json", "d.json")
    assert (done.returncode, done.stdout) == (0, "[0, 0]\n")
    run = the_run(tmp_path)
    assert run.status == "finished"
    assert sorted(m.info.name for m in run.models) == ["net (process 1)", "net (process 2)"]
    assert {len(m.steps) for m in run.models} == {25} and all(m.traces[0].step == 0 for m in run.models)
    assert {m.info.parameters[0].shape for m in run.models} == {(16, 4), (16, 5)}
    told = json.loads((tmp_path / "d.json").read_text())
    assert {m["name"]: m["verdict"] for m in told["models"]} == {
        "net (process 1)": "healthy",
        "net (process 2)": "healthy",
    }
    assert done.stderr.count("Run kept in") == 1
    for child in (tmp_path / "unvanish_runs").glob("*/children/*"):
        assert load(child).status == "finished"
        assert [p.name for p in child.iterdir()] == ["run.sqlite"]  # it was closed


@posix
def test_a_process_that_was_forked_in_mid_training_records_its_own_steps(tmp_path: Path) -> None:
    """The optimizer is the parent's: its first step in the child is the sign."""
    source = (
        TRAIN.replace(
            "def train(steps=25, width=4, pause=0.0):", "if True:\n    steps, width, pause = 25, 4, 0.0"
        )
        + """
import os
child = os.fork()
for _ in range(7 if child else 30):
    optimizer.zero_grad(); net(x).pow(2).mean().backward(); optimizer.step()
if child:
    print(os.waitpid(child, 0)[1], flush=True)
else:
    os.kill(os.getpid(), 0); raise SystemExit
"""
    )
    done = watched(tmp_path, source)
    assert (done.returncode, done.stdout) == (0, "0\n")
    run = the_run(tmp_path)
    assert {m.info.name: len(m.steps) for m in run.models} == {"net": 32, "net (process 1)": 30}
    child = run.models[1]
    assert child.traces and len(child.parameter_steps) >= 10
    assert list(child.steps) == list(range(30))


def test_a_script_that_starts_another_by_subprocess(tmp_path: Path) -> None:
    """The parent itself never imports torch; the child ends with an error, which stays its own."""
    (tmp_path / "worker.py").write_text(TRAIN + "train()\nprint(sys.argv, sys.path[0])\nsys.exit(5)\n")
    source = """
import subprocess, sys
print(subprocess.run([sys.executable, "worker.py", "--steps", "3"]).returncode, "torch" in sys.modules)
"""
    done = watched(tmp_path, source)
    assert done.returncode == 0
    assert done.stdout == f"['worker.py', '--steps', '3'] {tmp_path}\n5 False\n"
    (model,) = the_run(tmp_path).models
    assert model.info.name == "net" and len(model.steps) == 25


def test_options_reach_the_children(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        TRAIN + "import random; print(random.random())\ntry:\n    train()\nfinally:\n    print('finally')\n"
    )
    source = "import subprocess, sys; print(subprocess.run([sys.executable, 'worker.py']).returncode)"
    done = watched(tmp_path, source, "--steps", "6", "--every", "3", "--seed", "5", "--exact")
    import random

    assert done.stdout == f"{random.Random(5).random()}\nfinally\n0\n"
    (model,) = the_run(tmp_path).models
    assert list(model.steps) == list(range(6))
    assert [t.step for t in model.traces] == [0, 3]
    assert all(p.sampled == p.numel for p in model.info.parameters)


SERVES = """
import os, sys, torch
class Data(torch.utils.data.Dataset):
    def __len__(self): return 64
    def __getitem__(self, i):
        x = torch.randn(4, requires_grad=True)
        x.pow(2).sum().backward()  # it computes gradients itself
        return x.detach()
def serve():
    loader = torch.nn.Linear(2, 2)
    loader(torch.ones(2)).sum().backward()
    sys.modules.get("unvanish.session") and os.write(1, b"ours")
if __name__ == "__main__":
    import multiprocessing as mp, subprocess
    loaders = [torch.utils.data.DataLoader(Data(), 16, num_workers=1, multiprocessing_context=c) for c in ("spawn", "fork")]
    net = torch.nn.Linear(4, 1); optimizer = torch.optim.SGD(net.parameters(), 0.01)
    for loader in loaders:
        for x in loader:
            optimizer.zero_grad(); net(x).pow(2).mean().backward(); optimizer.step()
    server = mp.get_context("spawn").Process(target=serve); server.start(); server.join()
    print(server.exitcode, flush=True)
"""


@posix
@pytest.mark.slow
def test_children_that_only_serve_leave_nothing(tmp_path: Path) -> None:
    done = watched(tmp_path, SERVES, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    (model,) = the_run(tmp_path).models
    assert len(model.steps) == 8
    (folder,) = (tmp_path / "unvanish_runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["diagnosis.json", "run.sqlite"]


@posix
@pytest.mark.slow
def test_a_child_that_is_killed_opens_as_cut_off(tmp_path: Path) -> None:
    source = (
        TRAIN
        + """
if __name__ == "__main__":
    import multiprocessing as mp
    p = mp.get_context("spawn").Process(target=train, args=(100_000, 4, 0.005)); p.start()
    import glob
    while not glob.glob("unvanish_runs/*/children/*/run.sqlite"): time.sleep(0.05)
    time.sleep(1.5); p.kill(); p.join(); print(p.exitcode)
"""
    )
    done = watched(tmp_path, source)
    assert done.stdout == "-9\n"
    run = the_run(tmp_path)
    assert run.status == "finished"
    (model,) = run.models
    assert len(model.steps) > 20
    (said,) = run.skipped
    assert (said.model, said.why) == (0, f"cut off after {len(model.steps)} recorded steps")


def test_a_child_that_can_not_write_trains_on_and_the_diagnosis_says_so(tmp_path: Path) -> None:
    source = (
        TRAIN
        + """
import glob, pathlib, subprocess
if len(sys.argv) == 1:
    train()
    pathlib.Path(glob.glob("unvanish_runs/*")[0], "children").touch()  # a file is in the way
    print(subprocess.run([sys.executable, __file__, "child"]).returncode)
else:
    train(); print("trained", flush=True)
"""
    )
    done = watched(tmp_path, source, "--json", "d.json")
    assert (done.returncode, done.stdout) == (0, "trained\n0\n")
    (model,) = json.loads((tmp_path / "d.json").read_text())["models"]
    (said,) = [s for s in model["skipped"] if s["what"] == "a child process"]
    assert "was not recorded: " in said["why"] and "something else is in the way; name another" in said["why"]
    assert [s for s in the_run(tmp_path).skipped if s.what == "a child process"]  # the report says it, too
    assert not list(tmp_path.glob("unvanish-*.txt"))


# --- launchers ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_under_unvanish(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(DDP + "ddp()\nprint(sys.argv)\n")
    done = start(tmp_path, "-m", "unvanish", "run", "--json", "d.json", *TORCHRUN, "train.py", "x")
    assert (done.returncode, done.stdout.count("['train.py', 'x']")) == (
        0,
        2,
    )  # their lines may run into each other
    assert children(tmp_path) == ["rank0", "rank1"]
    (model,) = the_run(tmp_path).models
    assert (model.info.name, len(model.steps), model.traces[0].step) == ("net", 25, 0)
    (told,) = json.loads((tmp_path / "d.json").read_text())["models"]
    assert (told["name"], told["verdict"]) == ("net", "healthy")
    done = start(tmp_path, "-m", "unvanish", "report", str(next((tmp_path / "unvanish_runs").iterdir())))
    assert done.returncode == 0 and (tmp_path / done.stdout.strip()).exists()


ACCELERATE = """
import torch
from accelerate import Accelerator
def main():
    accelerator = Accelerator(cpu=True)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.2)
    data = torch.utils.data.TensorDataset(torch.randn(800, 4))
    net, optimizer, loader = accelerator.prepare(net, optimizer, torch.utils.data.DataLoader(data, 16))
    for (x,) in loader:
        optimizer.zero_grad()
        accelerator.backward(torch.nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long()))
        optimizer.step()
    print(accelerator.num_processes, flush=True)
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        (("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no"), 1),
        (TORCHRUN, 2),
    ],
)  # fmt: skip
def test_accelerate(words: tuple[str, ...], ranks: int, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ACCELERATE)
    done = start(tmp_path, "-m", "unvanish", "run", *words, "train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(ranks)) == ranks  # their lines may run into each other
    (model,) = the_run(tmp_path).models
    assert len(model.steps) == 50 // ranks
    assert len(children(tmp_path)) == ranks


LIGHTNING = """
import sys, torch
import lightning
class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    def training_step(self, batch, i):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), (batch[0][:, 0] > 0).long())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.2)
if __name__ == "__main__":
    data = torch.utils.data.TensorDataset(torch.randn(800, 4))
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy=sys.argv[1], max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Net(), torch.utils.data.DataLoader(data, 16))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
@pytest.mark.parametrize(("strategy", "found"), [("ddp", ["rank1"]), ("ddp_fork", ["rank0", "rank1"])])
def test_lightning(strategy: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LIGHTNING)
    done = start(tmp_path, "-m", "unvanish", "run", "train.py", strategy)
    assert done.returncode == 0, done.stderr
    assert children(tmp_path) == found
    (model,) = the_run(tmp_path).models
    assert len(model.steps) == 25


# --- what a child sees -------------------------------------------------------------------------------------

SEES = """
import os, sys
spec = sys.modules.get("sitecustomize")
print(sys.argv, sys.path, spec and spec.__file__, "unvanish" in sys.modules, __name__)
"""


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("path", ["", "elsewhere"])
def test_a_child_sees_what_it_sees_under_python(path: str, other: bool, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(SEES + "1 / 0\n")
    (tmp_path / "elsewhere").mkdir()
    if other:
        (tmp_path / "elsewhere" / "sitecustomize.py").write_text("print('another', __name__)")
    source = "import subprocess, sys; print(subprocess.run([sys.executable, 'child.py', 'x']).returncode)"
    (tmp_path / "s.py").write_text(source)
    ours = os.pathsep.join(p for p in sys.path if p.endswith("src"))
    extra = {"PYTHONPATH": os.pathsep.join(filter(None, [path, ours]))}
    plain = start(tmp_path, "s.py", **extra)
    done = start(tmp_path, "-m", "unvanish", "run", "s.py", **extra)
    assert done.stdout == plain.stdout
    assert done.stderr.startswith(plain.stderr) and "ZeroDivisionError" in plain.stderr
    assert plain.stdout.count("another") == (2 if other and path else 0)


def test_a_child_without_torch_pays_next_to_nothing(tmp_path: Path) -> None:
    """As python itself takes the time of its imports; the least of five."""
    hook = Path(launch.__file__).parent / "startup"
    environment = {**os.environ, "PYTHONPATH": str(hook), "UNVANISH_RUN": "{}"}
    command = [sys.executable, "-X", "importtime", "-c", "import sys; print(sorted(sys.modules))"]
    microseconds = []
    for _ in range(5):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        microseconds += [
            int(t) for t in re.findall(r"\|\s+(\d+) \|   sitecustomize$", done.stderr, re.MULTILINE)
        ]
    assert len(microseconds) == 5 and min(microseconds) < 10_000
    assert "unvanish" not in done.stdout and "'json'" not in done.stdout


def test_the_hook_is_silent_where_unvanish_can_not_be(tmp_path: Path) -> None:
    """Another python, say, or a torch that is none."""
    (tmp_path / "torch.py").write_text("ONE = 1\n")
    (tmp_path / "worker.py").write_text("import torch; print(torch.ONE)\n")
    source = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, 'worker.py']).returncode)"
    done = watched(tmp_path, source)
    assert done.stdout == "1\n"
    assert len(done.stderr.splitlines()) == 1 and "torch was never imported" in done.stderr


@pytest.mark.slow
def test_a_run_inside_of_a_run_is_a_run_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(TRAIN + "train()\n")
    source = textwrap.dedent("""
        import subprocess, sys
        subprocess.run([sys.executable, "-m", "unvanish", "run", "--quiet", "--out", "inner", "worker.py"], check=True)
        """)
    done = watched(tmp_path, source, "--out", "outer", "--quiet")
    assert done.returncode == 1  # nothing trained that was not told already
    assert not list((tmp_path / "outer").iterdir())
    assert len(the_run(tmp_path, "inner").models[0].steps) == 25


def test_sigterm_ends_a_child_as_it_would_without_us(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(TRAIN + "print('go', flush=True)\ntrain(100_000, 4, 0.005)\n")
    source = """
import glob, signal, subprocess, sys, time
p = subprocess.Popen([sys.executable, "worker.py"])
while not glob.glob("unvanish_runs/*/children/*/run.sqlite"): time.sleep(0.05)
time.sleep(0.5); p.terminate(); print(p.wait())
"""
    done = watched(tmp_path, source, "--quiet")
    assert done.stdout == f"go\n{-signal.SIGTERM}\n"
    assert len(the_run(tmp_path).models[0].steps) > 20
