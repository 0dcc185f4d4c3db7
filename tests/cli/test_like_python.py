"""``unvanish run x.py`` does what ``python x.py`` does: the same stdout, stderr and exit code, byte for byte.

The scripts here never train, so the command adds one line of its own to stderr, and turns a code of 0 into 1.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

ADDRESS = re.compile(rb"0x[0-9a-f]+")  # where an object lies differs from process to process
OURS = re.compile(rb"^unvanish: .*nothing to diagnose.*\n", re.MULTILINE)


def start(
    command: list[str], folder: Path, stdin: bytes = b"", extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(extra or {})}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment,
    )


def write(folder: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")


def assert_like_python(
    folder: Path, arguments: list[str], stdin: bytes = b"", extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    plain = start(arguments, folder, stdin, extra)
    ours = start(["-m", "unvanish", "run", "--out", "kept", *arguments], folder, stdin, extra)
    assert ours.stdout == plain.stdout
    assert ADDRESS.sub(b"", OURS.sub(b"", ours.stderr)) == ADDRESS.sub(b"", plain.stderr)
    assert OURS.search(ours.stderr), "the command says that there was nothing to watch"
    assert ours.returncode == (plain.returncode or 1)
    return plain


WHAT_A_SCRIPT_SEES = {
    "names": """
        import sys
        print(__name__, __file__, __doc__, __package__, __spec__, type(__loader__), __builtins__)
        print(sorted(globals()), sys.modules["__main__"].__dict__ is globals())
        """,
    "argv": "import sys; print(sys.argv, sys.orig_argv[1:])",
    "path": "import sys, os; print(sys.path, os.getcwd())",
    "annotations": "x: int = 3\nprint(__annotations__ if '__annotations__' in globals() else __annotate__)",
    "no future of ours": "def f(x: int): ...\nprint(f.__annotations__)",
    "stdin": "print(input('? '), repr(__import__('sys').stdin.read()))",
    "own module beside it": "import html; print(html.MINE)",
    "warnings": "import warnings; warnings.warn('old', DeprecationWarning); warnings.simplefilter('error')",
    "main is importable": "import __main__\nx = 5\nprint(__main__.x)",
    "pickle": """
        import pickle
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: int
        print(pickle.dumps(Point(1)), pickle.loads(pickle.dumps(Point(2))))
        """,
    "source": """
        import inspect, sys
        def f():
            return 1  # a comment
        print(inspect.getsource(f), inspect.getsourcefile(f), inspect.getmodule(f).__name__)
        """,
    "spawned children": """
        import multiprocessing as mp, sys
        def child(q):
            q.put((__name__, sys.argv, "unvanish" in sys.modules))
        if __name__ == "__main__":
            context = mp.get_context("spawn")
            q = context.Queue()
            p = context.Process(target=child, args=(q,))
            p.start(); print(q.get(timeout=30)); p.join(); print(p.exitcode)
        """,
    "forked pool": """
        import multiprocessing as mp
        def double(x):
            return 2 * x
        if __name__ == "__main__":
            with mp.get_context("fork").Pool(2) as pool:
                print(pool.map(double, range(4)))
        """,
    "a terminated child": """
        import multiprocessing as mp, time
        def sleep():
            try:
                time.sleep(30)
            finally:
                print("never said", flush=True)
        if __name__ == "__main__":
            p = mp.get_context("fork").Process(target=sleep)
            p.start(); time.sleep(.3); p.terminate(); p.join(); print(p.exitcode)
        """,
    "async": "import asyncio\nasync def main(): print('in')\nasyncio.run(main())",
    "click of its own": """
        import click
        @click.command()
        @click.option("--json")
        @click.argument("rest", nargs=-1)
        def main(json, rest): print(json, rest); raise click.ClickException("sorry")
        main()
        """,
}


@pytest.mark.parametrize("name", WHAT_A_SCRIPT_SEES)
def test_a_script_sees_what_it_sees_under_python(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"my script.py": WHAT_A_SCRIPT_SEES[name], "html.py": "MINE = 'mine'"})
    assert_like_python(tmp_path, ["my script.py", "--json", "a b", "x", "y"], b"one\ntwo\n")


HOW_A_SCRIPT_ENDS = {
    "well": "print('done', end='')",
    "exit 0": "raise SystemExit",
    "exit 7": "import sys; print('a'); sys.exit(7)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit 300": "import sys; sys.exit(300)",
    "exit True": "import sys; sys.exit(True)",
    "exit with words": "import sys; sys.exit('sorry: naïve')",
    "exit with a tuple": "import sys; sys.exit((1, 2))",
    "crash": "def f(x):\n    return 1 / x\n\nprint('a')\nf(0)\n",
    "crash in a library": "import json\njson.loads('{')\n",
    "long lines": "x = [1 +\n     2, (3).no, 4]\n",
    "chained": """
        def f():
            try:
                {}["a"]
            except KeyError as e:
                raise RuntimeError("later") from e
        try:
            f()
        except RuntimeError:
            raise ValueError("at last")
        """,
    "context hidden": "try:\n    1/0\nexcept ZeroDivisionError:\n    raise OSError('x') from None\n",
    "recursion": "import sys\ndef f(n):\n    if n: f(n - 1)\n    else: raise OSError('deep')\nf(20)\n",
    "in a class": "class A:\n    def __init__(self): self.x\nA()\n",
    "error without words": "class E(Exception):\n    def __str__(self): raise OSError\nraise E\n",
    "assert": "x = 3\nassert x == 4, 'no'\n",
    "base exception": "class Mine(BaseException): pass\nraise Mine('x')\n",
    "syntax": "x = 1\ndef (:\n",
    "indentation": "if 1:\nx\n",
    "missing import": "import nowhere_to_be_found\n",
    "syntax error in an import": "import broken\n",
    "own hook": """
        import sys
        def hook(kind, error, tb):
            import traceback
            print("mine", kind, error, [f.name for f in traceback.extract_tb(tb)], sys.exc_info())
        sys.excepthook = hook
        1 / 0
        """,
    "own hook that fails": "import sys\ndef hook(*a): raise OSError('hook')\nsys.excepthook = hook\n1 / 0\n",
    "own hook that exits": "import sys\nsys.excepthook = lambda *a: sys.exit(9)\n1 / 0\n",
    "notes": "e = OSError('x')\nif hasattr(e, 'add_note'): e.add_note('noted')\nraise e\n",
    "threads that outlive it": """
        import threading, time
        def work():
            time.sleep(.3); print("thread done")
        threading.Thread(target=work).start()
        print("main done", flush=True)
        """,
    "executor left open": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        pool.submit(print, "worked")
        """,
    "crash in a thread": """
        import threading
        t = threading.Thread(target=lambda: 1 / 0, name='T')
        t.start(); t.join()
        """,
    "atexit": """
        import atexit
        class A: pass
        atexit.register(lambda: print("bye", __name__, A.__name__))
        print("end")
        """,
    "atexit that fails": "import atexit\n@atexit.register\ndef bye(): print('bye'); 1 / 0\n",
    "a last del": "class A:\n    def __del__(self): print('gone')\na = A()\n",
    "streams replaced": """
        import sys, io
        sys.stderr, sys.stdout = io.StringIO(), io.StringIO()
        print('lost')
        1 / 0
        """,
    "stderr closed": "import sys\nsys.stdout.close()\n",
    "its own torch is broken": "import torch\n",
    "its own torch is broken, import error": "try:\n    import numpy.random\nfinally:\n    print('tried')\n",
}


@pytest.mark.parametrize("name", HOW_A_SCRIPT_ENDS)
def test_a_script_ends_as_it_ends_under_python(name: str, tmp_path: Path) -> None:
    files = {"s.py": HOW_A_SCRIPT_ENDS[name], "broken.py": "def f(:\n"}
    if "torch" in name:
        files["torch/__init__.py"] = "from torch import inner\n"
        files["torch/inner.py"] = "def f():\n    raise OSError('no such library')\nf()\n"
        files["numpy/__init__.py"] = ""
        files["numpy/random.py"] = "import nowhere_to_be_found\n"
    write(tmp_path, files)
    assert_like_python(tmp_path, ["s.py"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_an_exception_group_is_shown_as_python_shows_it(tmp_path: Path) -> None:
    source = """
        def f(): raise KeyError(1)
        def collect():
            errors = []
            for _ in range(2):
                try: f()
                except KeyError as e: errors.append(e)
            raise ExceptionGroup("two", errors)
        collect()
        """
    write(tmp_path, {"s.py": source})
    assert b"ExceptionGroup: two" in assert_like_python(tmp_path, ["s.py"]).stderr


PACKAGE = {
    "pkg/__init__.py": "print('init', __name__)",
    "pkg/__main__.py": """
        from . import other
        import sys
        print(__name__, __package__, __spec__.name, sys.argv, sys.orig_argv[-4:])
        other.f()
        """,
    "pkg/other.py": """
        import sys
        def f():
            print(sys.path, __name__); 1 / 0
        if __name__ == '__main__': f()
        """,
    "single.py": "import sys; print(__name__, __spec__.name, sys.argv); sys.exit(4)",
    "folder/__main__.py": "import sys, beside; print(__spec__.name, __file__, sys.argv, sys.path); 1 / 0",
    "folder/beside.py": "",
    "sub/deep.py": "import sys; print(sys.path, sys.argv, __file__); 1 / 0",
}


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "pkg", "-m", "x"],
        ["-m", "pkg.other", "--help"],
        ["-m", "single", "--", "-m"],
        ["-msingle", "--quiet"],
        ["-m", "pkg.missing"],
        ["-m", "single", "sub/deep.py"],
        ["folder", "a"],
        ["./folder/", "a"],
        ["sub/deep.py", "--", "--json"],
        ["./sub/../sub/deep.py"],
        ["link.py"],
        ["app.zip", "a"],
    ],
    ids=" ".join,
)
def test_modules_packages_folders_and_links(arguments: list[str], tmp_path: Path) -> None:
    write(tmp_path, PACKAGE)
    (tmp_path / "link.py").symlink_to(tmp_path / "sub" / "deep.py")
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", "import sys; print(__file__, sys.argv, sys.path); 1 / 0")
    assert_like_python(tmp_path, arguments)


def test_an_absolute_script_started_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, {"a/s.py": "import sys, os; print(sys.argv, sys.path, os.getcwd(), __file__); 1 / 0"})
    (tmp_path / "b").mkdir()
    assert_like_python(tmp_path / "b", [str(tmp_path / "a" / "s.py")])


def test_a_bytecode_file(tmp_path: Path) -> None:
    write(tmp_path, {"s.py": "import sys; print(__file__, type(__loader__)); sys.exit(3)"})
    start(["-c", "import py_compile; py_compile.compile('s.py', 't.pyc')"], tmp_path)
    assert_like_python(tmp_path, ["t.pyc"])


def test_safe_path_is_kept(tmp_path: Path) -> None:
    write(tmp_path, {"s.py": "import sys; print(sys.path)"})
    assert_like_python(tmp_path, ["s.py"], extra={"PYTHONSAFEPATH": "1"})


def test_the_installed_command_shows_the_script_the_same_path(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "s.py": "import sys; print(sys.path)",
            "bin/unvanish": "import sys\nfrom unvanish.cli import main\nsys.exit(main())",
        },
    )
    ours = start([str(tmp_path / "bin" / "unvanish"), "run", "--out", "kept", "s.py"], tmp_path)
    assert ours.stdout == start(["s.py"], tmp_path).stdout


def test_nothing_of_ours_is_seen_by_the_import_system_once_the_imports_were_made(tmp_path: Path) -> None:
    source = """
        import sys
        import numpy.random
        spec = numpy.random.__spec__
        print(sys.meta_path, vars(spec.loader), type(spec.loader), random_state := numpy.random.rand())
        """
    write(
        tmp_path,
        {
            "s.py": source,
            "numpy/__init__.py": "",
            "numpy/random.py": "def seed(s): global S; S = s\ndef rand(): return S",
        },
    )
    ours = start(["-m", "unvanish", "run", "--out", "kept", "--seed", "11", "s.py"], tmp_path)
    assert b"'exec_module'" not in ours.stdout
    assert ours.stdout.endswith(b" 11\n")


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, "the script did not start"
        time.sleep(0.02)


SLEEPER = """
    import pathlib, sys, time
    try:
        pathlib.Path("started").touch()
        time.sleep(30)
    except Exception:
        print("swallowed")
    finally:
        print("finally", flush=True)
    """


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_through_its_finally_blocks(number: signal.Signals, code: int, tmp_path: Path) -> None:
    write(tmp_path, {"s.py": SLEEPER})
    command = [sys.executable, "-m", "unvanish", "run", "--out", "kept", "s.py"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(tmp_path / "started")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (stdout, process.returncode) == (b"finally\n", code)
    shown = OURS.sub(b"", stderr)
    if number == signal.SIGTERM:
        assert shown == b""
    else:
        assert shown.startswith(b"Traceback (most recent call last):\n")
        assert shown.endswith(b"\nKeyboardInterrupt\n")
        assert b"unvanish" not in shown


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_that_runs_to_the_end_leaves_the_telling_to_its_parent(tmp_path: Path) -> None:
    source = (
        "import os, sys\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('end', flush=True)\nsys.exit(5)"
    )
    write(tmp_path, {"s.py": source})
    ours = start(["-m", "unvanish", "run", "--out", "kept", "s.py"], tmp_path)
    assert (ours.stdout, ours.returncode) == (b"end\nend\n", 5)
    assert ours.stderr.count(b"unvanish:") == 1
