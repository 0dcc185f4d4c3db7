"""Processes end to end: `serve` as a command, and `run --live` beside a script that trains."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from unvanish.cli import main
from unvanish.serving.beside import _linger
from unvanish.serving.server import Server

SCRIPT = """
    import os, pathlib, sys, time
    import torch
    from torch import nn
    net = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(8, 8), nn.Sigmoid())])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    print("begins", sys.argv[1:], sys.stdout.isatty(), flush=True)
    until = time.time() + 60
    while not pathlib.Path("stop").exists() and time.time() < until:
        optimizer.zero_grad()
        net(torch.randn(8, 8)).square().mean().backward()
        optimizer.step()
        time.sleep(0.01)
    try:
        os.wait()
        print("a child that is none of mine")
    except ChildProcessError:
        print("no children", flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "unvanish", *words]


def fetch(url: str, etag: str = "") -> tuple[int, str, Any]:
    request = urllib.request.Request(url, headers={"If-None-Match": etag})  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - ours
            return reply.status, reply.headers["ETag"], json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers["ETag"], None


def test_a_run_is_shown_while_it_trains_and_how_it_ended_after(script: Path) -> None:
    with subprocess.Popen(
        command("run", "--live", "train.py", "--live"), cwd=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        found = re.search(r"unvanish: live at (http://127\.0\.0\.1:\d+)/run/(\S+)", process.stderr.readline())
        assert found is not None
        address = f"{found[1]}/api/runs/{found[2]}/view"
        seen, etag = [], ""
        until = time.monotonic() + 60
        while len(set(seen)) < 3 and time.monotonic() < until:
            status, tag, view = fetch(address, etag)
            if status == 200 and view["models"]:
                assert tag != etag
                assert view["run"]["status"] == "running"
                seen.append(view["models"][0]["loss"]["recorded"])
                etag = tag
            time.sleep(0.2)
        assert len(set(seen)) == 3
        assert seen == sorted(seen)
        (script / "stop").touch()
        view = fetch(address)[2]
        while view["run"]["status"] != "finished" and time.monotonic() < until + 20:
            time.sleep(0.2)  # as a page that is open does
            view = fetch(address)[2]
        assert view["run"]["status"] == "finished"
        printed, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed == "begins ['--live'] False\nno children\n"
    assert "Verdict" in said
    assert "\x1b" not in said


def test_the_terminal_s_lower_part_is_drawn_on_and_given_back(script: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(script)
        os.environ.update(TERM="xterm-256color", NO_COLOR="1")
        os.execv(sys.executable, command("run", "--live", "--steps", "100000", "train.py"))  # noqa: S606 - ours
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    output, until = b"", time.monotonic() + 60
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        output += part
        if output.count(b"So far") >= 2 or time.monotonic() > until:
            (script / "stop").touch()
    text = output.decode()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text
    pictures = re.findall(r"\x1b7\x1b\[\?7l(.*?)\x1b\[\?7h\x1b8", text, re.DOTALL)
    last = [
        re.sub(r"\x1b\[[0-9;]*m", "", line) for line in re.split(r"\x1b\[\d+;1H\x1b\[2K", pictures[-1])[1:]
    ]
    assert len(last) == 15  # half of 30
    assert all(len(line) < 90 for line in last)
    assert re.match(r"step [\d,]+ of 100,000 .* left .* loss 0\.\d+ [\u2581-\u2588]", last[2])
    assert re.match(r"0 +[\u2591\u2592\u2593\u2588]+", last[5])
    assert not re.search(r"\x1b\[[\d;]*[34]\d[\d;]*m", pictures[-1])  # NO_COLOR
    assert re.findall(r"\x1b\[\d*;?\d*r", text) == ["\x1b[1;15r", "\x1b[r"]
    # what the script and we print is whole, and stands outside of the pictures
    around = re.sub(r"\x1b7.*?\x1b8", "", text, flags=re.DOTALL)
    for words in ("begins [] True\r\n", "no children\r\n", "Verdict", "Run kept in"):
        assert words in around
    assert text.rindex("\x1b[r") < text.rindex("Verdict")


def test_serve_says_where_answers_and_ends_at_ctrl_c(folder: Path) -> None:
    with subprocess.Popen(
        command("serve", str(folder), "--port", "0"), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        found = re.search(r"at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)", process.stderr.readline())
        assert found is not None
        assert [row["id"] for row in fetch(f"{found[1]}api/runs")[2]] == ["twin", "sick"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == "unvanish: no longer serving\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "there is no folder nowhere; name the one that runs are kept in"),
        ((".", "--host", "no.such.host.invalid"), "no.such.host.invalid can't be listened on"),
        ((".", "--token", "short"), "the token is too short to keep anybody out"),
    ],
)
def test_what_can_t_be_served_is_one_line(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"unvanish: {said}")
    assert error.count("\n") == 1


def test_it_stays_only_for_a_page_that_is_open(client: Any) -> None:
    server: Server = client.server
    began = time.monotonic()
    _linger(server)  # nobody has ever asked
    assert time.monotonic() - began < 0.2
    server.asked = time.monotonic() - 7.5  # the page asks every 2 s, so it may still come
    _linger(server)
    assert 0.3 < time.monotonic() - began < 3
