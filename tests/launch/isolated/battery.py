"""What ordinary scripts do with files. Run as `python battery.py SCRATCH WAY` in the user's folder; prints JSON."""

import csv
import glob
import gzip
import json
import logging
import mmap
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from os import remove as kept_remove
from pathlib import Path

import numpy as np
import torch

from unvanish.launch.isolation import isolate

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def checkpoint_over_one_that_exists():
    torch.save({"w": torch.ones(3)}, "best.pt")
    assert torch.equal(torch.load("best.pt")["w"], torch.ones(3))
    torch.save(torch.full((2,), 7.0), Path.cwd() / "best.pt")
    assert torch.load(os.path.abspath("best.pt"))[0] == 7


@case
def old_zip_format():
    torch.save({"w": torch.ones(3)}, "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(torch.load("old.pt")["w"], torch.ones(3))


@case
def scripted_model():
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), "scripted.pt")
    assert torch.jit.load("scripted.pt")(torch.ones(1, 2)).shape == (1, 2)


@case
def log_appended_to():
    with open("log.csv", "a") as file:
        file.write("new line\n")
    lines = open("log.csv").read().splitlines()
    assert lines == ["user's line", "new line"], lines


@case
def read_and_written_in_place():
    with open("notes.txt", "r+") as file:
        assert file.read() == "user's notes"
        file.seek(0)
        file.write("USER")
    assert open("notes.txt").read() == "USER's notes"


@case
def exclusive_creation():
    open("fresh.txt", "x").close()
    for name in ("fresh.txt", "notes.txt"):
        try:
            open(name, "x")
        except FileExistsError as error:
            assert error.filename == name or error.filename.endswith(name), error.filename
            assert "scratch" not in str(error.filename)
        else:
            raise AssertionError(name)


@case
def missing_files_are_missing():
    for call in (
        lambda: open("nowhere/x.txt", "w"),
        lambda: open("missing.txt"),
        lambda: os.remove("missing.txt"),
        lambda: os.stat("missing.txt"),
        lambda: os.rename("missing.txt", "x"),
        lambda: os.mkdir("nowhere/x"),
    ):
        try:
            call()
        except FileNotFoundError as error:
            assert "scratch" not in str(error.filename), error.filename
        else:
            raise AssertionError


@case
def folders():
    os.makedirs("out/a/b")
    Path("out/a/c").mkdir(parents=True, exist_ok=True)
    os.makedirs("runs", exist_ok=True)
    assert os.path.isdir("out/a/b") and Path("out/a/c").is_dir()
    assert sorted(os.listdir("out/a")) == ["b", "c"]
    try:
        os.mkdir("runs")
    except FileExistsError:
        pass
    else:
        raise AssertionError
    Path("runs/new.txt").write_text("new")
    assert sorted(os.listdir("runs")) == ["1.txt", "2.txt", "new.txt"]
    assert sorted(p.name for p in Path("runs").iterdir()) == ["1.txt", "2.txt", "new.txt"]
    assert sorted(glob.glob("runs/*.txt")) == ["runs/1.txt", "runs/2.txt", "runs/new.txt"]
    assert sorted(p.name for p in Path("runs").glob("*.txt")) == ["1.txt", "2.txt", "new.txt"]
    assert sorted(os.walk("runs"))[0][2].__len__() == 3
    assert all(e.is_file() and e.stat().st_size for e in os.scandir("runs"))


@case
def replaced_at_once():
    Path("state.json.tmp").write_text("{}")
    os.replace("state.json.tmp", "state.json")
    assert json.loads(Path("state.json").read_text()) == {} and not os.path.exists("state.json.tmp")
    with tempfile.NamedTemporaryFile("w", dir=".", delete=False) as file:
        file.write("[1]")
    os.rename(file.name, "state.json")
    assert json.load(open("state.json")) == [1]
    Path("notes2.txt").rename("moved.txt")
    assert Path("moved.txt").read_text() == "user's second" and not Path("notes2.txt").exists()


@case
def old_checkpoints_removed():
    os.remove("ckpt_1.pt")
    Path("ckpt_2.pt").unlink()
    kept_remove("ckpt_3.pt")
    assert sorted(glob.glob("ckpt_*")) == ["ckpt_4.pt"]
    assert not os.path.exists("ckpt_1.pt")
    Path("ckpt_1.pt").write_text("again")
    assert sorted(os.listdir(".")).count("ckpt_1.pt") == 1 and Path("ckpt_1.pt").read_text() == "again"
    os.remove("ckpt_1.pt")
    assert not os.path.exists("ckpt_1.pt")


@case
def folder_removed_and_made_anew():
    shutil.rmtree("cache")
    assert not os.path.exists("cache") and not os.path.exists("cache/x.bin")
    os.makedirs("cache")
    assert os.listdir("cache") == []
    Path("cache/y.bin").write_bytes(b"y")
    assert os.listdir("cache") == ["y.bin"]
    shutil.rmtree("cache")
    shutil.copytree("data", "cache")
    assert Path("cache/deep/d.txt").read_text() == "d"
    Path("cache/deep/d.txt").write_text("changed")
    assert Path("data/deep/d.txt").read_text() == "d"


@case
def moved_with_shutil():
    shutil.copy("notes.txt", "copy.txt")
    shutil.copy2("best.pt", "copy.pt")
    shutil.move("copy.txt", "runs")
    assert Path("runs/copy.txt").exists() and not Path("copy.txt").exists()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x").write_text("x")
        shutil.move(os.path.join(folder, "x"), "from_temp.txt")
    assert Path("from_temp.txt").read_text() == "x"


@case
def numpy_files():
    np.savez("arrays.npz", a=np.ones(3))
    np.save("array.npy", np.zeros(2))
    np.savetxt("table.txt", np.eye(2))
    np.arange(4.0).tofile("raw.bin")
    assert np.load("arrays.npz")["a"].sum() == 3 and np.load("array.npy").shape == (2,)
    assert np.loadtxt("table.txt").trace() == 2 and np.fromfile("raw.bin").sum() == 6


@case
def memory_map():
    array = np.memmap("map.dat", dtype="float32", mode="r+", shape=(4,))
    assert array[0] == 1
    array[:] = 5
    array.flush()
    assert np.fromfile("map.dat", dtype="float32").sum() == 20
    fresh = np.memmap("fresh.dat", dtype="float32", mode="w+", shape=(4,))
    fresh[:] = 2
    with open("map.dat", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"x"


@case
def json_csv_pickle_gzip_zip():
    with Path("metrics.json").open("w") as file:
        json.dump({"loss": 1}, file)
    with open("rows.csv", "w", newline="") as file:
        csv.writer(file).writerow([1, 2])
    with open("objects.pkl", "wb") as file:
        pickle.dump([1], file)
    with gzip.open("some.gz", "wt") as file:
        file.write("zipped")
    with zipfile.ZipFile("some.zip", "w") as file:
        file.writestr("a", "b")
    Path("bytes.bin").write_bytes(b"1")
    assert pickle.load(open("objects.pkl", "rb")) == [1] and gzip.open("some.gz", "rt").read() == "zipped"
    assert zipfile.ZipFile("some.zip").read("a") == b"b" and Path("bytes.bin").stat().st_size == 1


@case
def logging_handler():
    handler = logging.FileHandler("train.log")
    handler.emit(logging.LogRecord("x", 20, "", 0, "hello", (), None))
    handler.close()
    assert open("train.log").read() == "user's log\nhello\n"


@case
def database():
    with sqlite3.connect("results.db") as db:
        assert db.execute("select count(*) from t").fetchone() == (1,)
        db.execute("insert into t values (2)")
        db.commit()
        assert db.execute("select count(*) from t").fetchone() == (2,)
    again = sqlite3.connect(Path("results.db"))
    assert again.execute("select count(*) from t").fetchone() == (2,)
    sqlite3.connect(":memory:").execute("create table t (x)")


@case
def times_and_permissions():
    os.utime("notes.txt", (1, 1))
    os.chmod("best.pt", 0o600)
    Path("log.csv").touch()
    assert os.stat("notes.txt").st_mtime == 1 and os.stat("best.pt").st_mode & 0o777 == 0o600
    os.truncate("short.txt", 2)
    assert os.path.getsize("short.txt") == 2


@case
def links():
    os.symlink("ckpt_4.pt", "latest.pt")
    assert open("latest.pt").read() == "user's 4"
    with open("latest.pt", "w") as file:
        file.write("through the link")
    assert open("ckpt_4.pt").read() == "through the link" and os.path.islink("latest.pt")
    os.remove("latest.pt")
    os.link("linked.txt", "second.txt")
    with open("second.txt", "w") as file:
        file.write("by its second name")
    with open("to_data/deep/d.txt", "w") as file:  # a link of the user's
        file.write("by a link")
    assert open("data/deep/d.txt").read() == "by a link"


@case
def another_working_folder():
    before = os.getcwd()
    os.makedirs("work/inner")
    os.chdir("work/inner")
    assert os.getcwd() == os.path.join(before, "work", "inner") and Path.cwd() == Path(
        before, "work", "inner"
    )
    open("x.txt", "w").write("x")
    torch.save(torch.ones(1), "x.pt")
    assert sorted(os.listdir()) == ["x.pt", "x.txt"]
    os.chdir(before)
    assert open("work/inner/x.txt").read() == "x" and os.path.exists(os.path.join(before, "work/inner/x.pt"))


@case
def descriptors():
    number = os.open("by_number.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.write(number, b"1")
    os.close(number)
    number = os.open("notes3.txt", os.O_RDWR | os.O_APPEND)
    os.write(number, b"!")
    os.close(number)
    assert open("by_number.txt").read() == "1" and open("notes3.txt").read() == "user's third!"
    with open("by_number.txt") as file:
        assert os.fstat(file.fileno()).st_size == os.stat(file.fileno()).st_size == 1


@case
def in_a_fork():
    child = os.fork()
    if not child:
        with open("from_fork.txt", "w") as file:
            file.write("x")
        os.remove("fork_me.txt")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert open("from_fork.txt").read() == "x"


@case
def home_and_elsewhere():
    home = Path.home() / ".cache" / "thing"
    home.mkdir(parents=True, exist_ok=True)
    (home / "x").write_text("x")
    assert (home / "x").read_text() == "x"


@case
def temporary_files_are_plain_ones():
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "x"), "w") as file:
        file.write("x")
    open("/dev/null", "w").close()
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(b"x")


@case
def tensorboard():
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    writer = SummaryWriter("tb")
    writer.add_scalar("a", 1.0, 1)
    writer.close()
    assert len(os.listdir("tb")) == 1


@case
def pipes():
    if sys.argv[2] == "python":  # the user's own, with someone at its other end
        number = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
        with open("pipe", "w") as file:
            file.write("x")
        assert os.read(number, 1) == b"x"
    os.mkfifo("own_pipe")
    number = os.open("own_pipe", os.O_RDWR)
    os.write(number, b"x")
    assert os.read(number, 1) == b"x"


@case
def native_writes_are_held():
    if sys.argv[2] == "mounts":
        subprocess.run(["sh", "-c", "echo x >> notes.txt; rm log.csv; touch native"], check=True)
        assert os.path.exists("native") and not os.path.exists("log.csv")


@case
def unled_ways_are_refused():
    import _io

    try:
        _io.FileIO(os.path.abspath("notes.txt"), "a").close()
        assert sys.argv[2] == "mounts"
    except PermissionError:
        assert sys.argv[2] == "python"


if __name__ == "__main__":
    os.environ["UNVANISH_ISOLATION"] = sys.argv[2]
    assert isolate(Path(sys.argv[1]), [os.getcwd()]) == sys.argv[2]
    said = {}
    for name, function in CASES.items():
        here = os.getcwd()
        try:
            function()
            said[name] = ""
        except BaseException:
            said[name] = traceback.format_exc()
        os.chdir(here)
    print(json.dumps(said))
