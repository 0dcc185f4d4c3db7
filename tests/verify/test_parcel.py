"""The script's files on another machine: found, told apart, sent, and run there."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import rough_runners
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish.errors import UsageError
from unvanish.verify.engines import parcel
from unvanish.verify.engines.seat import Lacking, Seat, Versions, versions
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A script with a module, a package, data, and what is not to be sent."""
    folder = tmp_path / "project"
    for name, text in {
        "train.py": "from pathlib import Path\nfrom shape import WIDTH\nfrom net.layers import DEPTH\n"
        "PRODUCT = WIDTH * DEPTH * int(Path('data/rows.txt').read_text())\n",
        "shape.py": "WIDTH = 3\n",
        "net/__init__.py": "",
        "net/layers.py": "DEPTH = 5\n",
        "data/rows.txt": "7",
        "notes/loose.py": "no package",
        ".git/objects/big": "x" * 1000,
        "venv/pyvenv.cfg": "",
        "my-env/pyvenv.cfg": "",
        "my-env/lib/torch.py": "",
        "__pycache__/train.pyc": "x",
        "unvanish_runs/run.sqlite": "x",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def target(folder: Path, program: str = "train.py", **more: object) -> Target:
    return Target(program=program, directory=str(folder), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("train.py", True),
        ("shape.py", True),
        ("net/layers.py", True),
        ("data/rows.txt", False),
        ("notes/loose.py", False),
    ],
)
def test_a_fingerdigestis_of_the_script_and_the_modules_that_it_can_import(
    project: Path, name: str, counts: bool
) -> None:
    before = parcel.fingerprint(target(project))
    elsewhere = shutil.copytree(project, project.parent / "elsewhere")
    assert parcel.fingerprint(target(elsewhere)) == before
    (elsewhere / name).write_text("WIDTH = 4")
    assert (parcel.fingerprint(target(elsewhere)) != before) is counts


def test_what_is_no_file_has_no_fingerprint(project: Path) -> None:
    assert parcel.fingerprint(target(project, "no such script")) is None
    assert parcel.fingerprint(target(project, "json.tool", is_module=True)) is None  # an installed one
    assert parcel.fingerprint(target(project, "net.layers", is_module=True)) is not None
    assert parcel.fingerprint(target(project / "data", "../train.py")) == parcel.fingerprint(target(project))


def test_the_folder_is_sent_without_what_is_not_the_script_s(project: Path, tmp_path: Path) -> None:
    (folder,) = parcel.pack(target(project))
    assert [name for name, _ in folder.files] == [
        "shape.py", "train.py", "data/rows.txt", "net/__init__.py", "net/layers.py", "notes/loose.py",
    ]  # fmt: skip
    moved = parcel.unpack((folder,), tmp_path / "there")
    for name, content in folder.files:
        assert (Path(moved[str(project)]) / name).read_bytes() == content == (project / name).read_bytes()


def test_a_script_outside_of_its_directory_is_sent_with_its_folder(project: Path, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "other.py").write_text("1")
    folders = parcel.pack(target(project, "../scripts/other.py"))
    assert [f.path for f in folders] == [str(project), str(scripts)]
    assert [f.path for f in parcel.pack(target(project, "net/layers.py"))] == [str(project)]  # once


def test_paths_follow_the_folder(project: Path) -> None:
    moved = {str(project): "/there/project"}
    given = target(project, "../project/train.py", arguments=(
        f"{project}/data", f"--data={project}", "--name", f"{project}-other", "x", f"say={project}",
    ))  # fmt: skip
    found = parcel.relocate(given, moved)
    assert found.directory == "/there/project"
    assert found.arguments == (
        "/there/project/data", "--data=/there/project", "--name", f"{project}-other", "x", f"say={project}",
    )  # fmt: skip


def test_a_folder_that_is_too_large_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "LIMIT_BYTES", 2**20)
    (project / "data/images").write_bytes(b"x" * 2**20)
    with pytest.raises(
        UsageError, match=r"more than 1 MiB: too much to send; put it on a disk that all machines"
    ):
        parcel.pack(target(project))
    (project / "data/images").unlink()
    assert parcel.pack(target(project))


@pytest.mark.parametrize("program", ["train.py", "../project/train.py", "absolute"])
def test_a_seat_that_lacks_the_script_runs_a_copy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    given = target(project, str(project / "train.py") if program == "absolute" else program)
    trial = TrialSpec(candidate="product", prescriptions=(), target=given, seed=0, seconds=60.0)
    digest, folders = parcel.fingerprint(given), parcel.pack(given)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = [tmp_path / f"unvanish-scripts-{owner}-abc" for owner in (2**22 + 1, os.getpid())]
    for left in killed:
        left.mkdir()
    seat = Seat("rough_runners:script", 1, None, 2, [str(Path(rough_runners.__file__).parent)])
    try:
        here = seat.run(trial, digest)
        assert isinstance(here, TrialOutcome) and here.losses == (105.0,), here
        (project / "shape.py").write_text("WIDTH = 4\n")  # an older state of the script, as on a copied disk
        changed = replace(trial, target=replace(given, arguments=("other",)))
        assert isinstance(seat.run(changed, digest), Lacking)
        shutil.rmtree(project)
        another = replace(trial, target=replace(given, arguments=("another",)))
        assert isinstance(seat.run(another, digest), Lacking)
        there = seat.run(another, digest, folders)
        again = seat.run(another, digest)  # it is kept
        assert isinstance(there, TrialOutcome) and isinstance(again, TrialOutcome)
        assert there.losses == again.losses == (105.0,)
        copies = Path(there.spec.target.directory)
        assert copies.exists() and copies.name == "project"
        assert [left.exists() for left in killed] == [False, True]  # its seat lives
    finally:
        seat.close()
    assert not copies.exists()


def test_versions_that_differ_are_named() -> None:
    mine = Versions(unvanish="a1", torch="2.5.0", python="3.11.7")
    assert mine.differences(mine) == []
    assert mine.differences(replace(mine, torch="2.4.1", python="3.11.9")) == [
        "torch 2.4.1 instead of 2.5.0",
        "python 3.11.9 instead of 3.11.7",
    ]
    assert versions() == versions()


names = st.text(
    st.characters(whitelist_categories=("L", "N"), whitelist_characters="-_ ü"), min_size=1, max_size=8
)
trees = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=20), min_size=1, max_size=6
)


@given(tree=trees)
@settings(max_examples=40)
def test_what_is_packed_comes_out_again(tree: dict[str, bytes]) -> None:
    tree = {
        n: c for n, c in tree.items() if not any(m.startswith(f"{n}/") for m in tree)
    }  # no file is a folder
    with tempfile.TemporaryDirectory() as place:
        for name, content in tree.items():
            path = Path(place, "top", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder,) = parcel.pack(target(Path(place, "top")))
        moved = parcel.unpack((folder,), Path(place, "there"))
        top = Path(moved[folder.path])
        found = {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    assert found == {n: c for n, c in tree.items() if not set(n.split("/")[:-1]) & parcel._SKIPPED}
