"""Processes and memory, against what the kernel or another program says of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unvanish.verify.engines import machine

pytestmark = pytest.mark.skipif(not machine.HAS_PROC, reason="reads /proc")


def test_descendants_are_what_ps_says_parents_first() -> None:
    code = "import subprocess; subprocess.run(['sh', '-c', 'echo up; sleep 60 & sleep 60; true'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while len(found := machine.descendants(process.pid)) < 3:
            pass
        table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = {int(a): int(b) for a, b in (line.split() for line in table.splitlines())}
        for other in found:
            os.kill(other, 9)
    assert {parents[p] for p in found} <= {process.pid, *found}
    assert all(parents[p] == process.pid or found.index(parents[p]) < i for i, p in enumerate(found))


def test_a_dead_process_that_nobody_waited_for_is_not_counted() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.pid not in machine.descendants(os.getpid())
    process.wait()


def test_memory_of_one_process() -> None:
    me = [os.getpid()]
    before = machine.held_bytes(me), machine.resident_bytes(me)
    block = b"x" * (64 * 2**20)
    after = machine.held_bytes(me), machine.resident_bytes(me)
    assert len(block) * 0.95 < after[0] - before[0] < len(block) * 1.2
    assert len(block) * 0.95 < after[1] - before[1] < len(block) * 1.2
    assert after[0] <= after[1]
    assert machine.held_bytes([2**22 + 1]) == machine.resident_bytes([2**22 + 1]) == 0  # no such process


@pytest.mark.parametrize(
    ("table", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "5000"}, [5000]),
        ("0::/a/b\n", {"a/b/memory.max": "3000", "a/memory.max": "5000"}, [3000, 5000]),
        ("0::/\n", {"memory.max": "7000"}, [7000]),  # seen from inside a container
        ("0::/gone\n", {}, []),
        ("9:cpu:/x\n4:memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "900", "cpu/x/memory.max": "1"}, [900]),
    ],
)  # fmt: skip
def test_limits_of_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, limits: dict[str, str], expected: list[int]
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(table)
    for name, text in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    assert machine._group_limits() == expected
    assert machine.machine_bytes() == min(
        [*expected, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    )


def test_a_share_of_the_machine() -> None:
    assert machine.share_bytes(4) == pytest.approx(0.2 * machine.machine_bytes(), abs=4)


def test_sizes_in_words() -> None:
    assert machine.size_words(150 * 2**20) == "150 MiB"
    assert machine.size_words(int(6.42 * 2**30)) == "6.4 GiB"
