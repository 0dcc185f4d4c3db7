"""``unvanish serve`` and ``unvanish compare``: runs that are there, shown live or side by side."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unvanish.cli import files
from unvanish.errors import UsageError


def serve_folder(folder: str, host: str, port: int | None, token: str | None) -> int:
    """Serve the folder until Ctrl-C or SIGTERM; gives the exit code 0. UnvanishError where that can't begin."""
    if token is not None and len(token) < 8:
        raise UsageError("the token is too short to keep anybody out", "give 8 characters or more, or none")
    from unvanish.serving.guard import guard_for
    from unvanish.serving.runs import Runs
    from unvanish.serving.server import DEFAULT_PORT, Server

    server = Server(Runs(folder), guard_for(host, token), DEFAULT_PORT if port is None else port)
    with contextlib.suppress(ValueError):  # not in the main thread: then there is no signal to wait for
        signal.signal(signal.SIGTERM, _end)
    try:
        files.say(f"serving {folder} at {server.url} (Ctrl-C ends it)", sys.stderr)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        files.say("no longer serving", sys.stderr)
    finally:
        server.close()
    return 0


def _end(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def compare_runs(paths: Sequence[str], output: str | None, json_path: str | None) -> int:
    """Tell how the runs differ, on stdout; as one page with `output`; as JSON with --json. Gives the exit code 0."""
    if len(paths) < 2:
        raise UsageError("one run has nothing to be compared with", "name two runs or more")
    json_file = files.writable_json(json_path)
    from rich.console import Console

    from unvanish import session
    from unvanish.present.compare import comparison, print_comparison
    from unvanish.present.html import render_comparison
    from unvanish.store import save_result

    views = [session.page_view(path) for path in paths]
    if output is not None:
        place = Path(output)
        page = save_result(place.parent, place.name, render_comparison(comparison(views)))
        files.say(f"the page of the comparison is {page}", sys.stderr)
    if json_path != files.STDOUT:
        print_comparison(views, Console(file=sys.stdout))
    if json_path is not None:
        files.write_json(comparison(views), json_path, json_file, sys.stdout)
    return 0
