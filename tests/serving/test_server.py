"""Real HTTP: what is answered, to whom, and what no request gets at."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from serve_helpers import Client, serving, train
from torch import nn

from unvanish import session
from unvanish.errors import UsageError
from unvanish.serving import runs as runs_module
from unvanish.serving.guard import guard_for
from unvanish.serving.runs import Runs
from unvanish.serving.server import Server


def test_the_list_has_a_line_for_each_run_the_newest_first(client: Client) -> None:
    rows = client.get("/api/runs").json
    assert [row["id"] for row in rows] == ["twin", "sick"]
    told = {row["id"]: row for row in rows}
    kept = json.loads((client.server.runs.places.root / "sick" / "diagnosis.json").read_text())
    assert told["sick"]["verdict"] == kept["verdict"] == "sick"
    assert told["sick"]["loss"] == kept["models"][0]["loss"]["last"]
    assert told["sick"]["steps"] == 120
    assert set(rows[0]) == {"id", "name", "created", "status", "verdict", "steps", "loss"}


def test_a_run_without_a_kept_diagnosis_gets_its_verdict_a_moment_later(tmp_path: Path) -> None:
    path = train(tmp_path, nn.Sigmoid)
    (path / "diagnosis.json").unlink()
    for client in serving(tmp_path):
        until = time.monotonic() + 20
        while (row := client.get("/api/runs").json[0])["verdict"] is None and time.monotonic() < until:
            time.sleep(0.05)
        assert (row["verdict"], row["steps"]) == ("sick", 120)


def test_the_view_is_the_one_that_the_report_draws(client: Client, folder: Path) -> None:
    assert client.get("/api/runs/sick/view").json == json.loads(
        json.dumps(session.page_view(folder / "sick"))
    )


def test_an_unchanged_view_is_not_sent_again_and_a_changed_one_is(tmp_path: Path) -> None:
    path = train(tmp_path, nn.ReLU)
    for client in serving(tmp_path):
        address = f"/api/runs/{path.name}/view"
        first = client.get(address)
        again = client.get(address, If_None_Match=first.headers["ETag"])
        assert (again.status, again.body) == (304, b"")
        treated = json.loads((Path(__file__).with_name("treatment.json")).read_text())
        (path / "treatment.json").write_text(json.dumps(treated))
        changed = again
        until = time.monotonic() + 60
        while changed.status == 304 and time.monotonic() < until:  # at most a making a second
            time.sleep(0.1)
            changed = client.get(address, If_None_Match=first.headers["ETag"])
        assert changed.status == 200
        assert changed.headers["ETag"] != first.headers["ETag"]
        assert changed.json["treatment"]["rows"][0]["title"] == "As it is"


def test_the_pages_name_their_data_and_nothing_else(client: Client) -> None:
    for path, kind, address in (
        ("/", "runs", "api/runs"),
        ("/run/sick", "view", "../api/runs/sick/view"),
        ("/compare?runs=sick,twin", "compare", "api/compare?runs=sick,twin"),
    ):
        reply = client.get(path)
        page = reply.body.decode()
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert f'<meta name="unvanish-{kind}" content="{address}">' in page
        assert len(re.findall(r'<meta name="unvanish-', page)) == 1
        assert 'id="unvanish-view"' not in page.split("<script>")[0]
        policy = reply.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy


def test_compared_runs_are_whole_views_with_their_difference(client: Client) -> None:
    told = client.get("/api/compare?runs=sick,twin").json
    assert told["kind"] == "compare"
    assert [view["verdict"] for view in told["runs"]] == ["sick", "healthy"]
    (difference,) = told["differences"]
    assert (difference["a"], difference["b"]) == tuple(view["run"]["id"] for view in told["runs"])
    sick, twin = (view["models"][0]["signal"] for view in told["runs"])
    # the twin's first layer gets decades more, and the cells say how many: at each step the last that was measured
    for step, cell in zip(difference["steps"], difference["cells"][0], strict=True):
        then = [max(i for i, s in enumerate(m["steps"]) if s <= step) for m in (sick, twin)]
        assert cell == pytest.approx(twin["cells"][0][then[1]] - sick["cells"][0][then[0]], abs=0.011)
        assert cell > 2


def test_the_self_contained_page_is_served_too(client: Client) -> None:
    page = client.get("/api/runs/sick/report.html").body.decode()
    assert '<script type="application/json" id="unvanish-view">' in page


@pytest.mark.parametrize("names", ["", "sick", "sick,sick", ",".join(f"r{i}" for i in range(9))])
def test_a_comparison_of_too_few_or_too_many_is_refused(names: str, client: Client) -> None:
    reply = client.get(f"/api/compare?runs={names}")
    assert reply.status == 400
    assert "2 to 8" in reply.json["error"]


# --- what is not to be got --------------------------------------------------------------------------------

OUTSIDE = (
    "..", ".", "%2e%2e", "..%2f..", "%2e%2e%2fsecret", "..%5c..", "sick%2f..%2f..%2fsecret", "%00", "sick%00",
    "%2fetc%2fpasswd", "C:%5c", "sick%2frun.sqlite", "SICK", "sick.", "sick%20", "%ff", "link", "holds_link",
)  # fmt: skip


@pytest.fixture
def with_links(tmp_path: Path, folder: Path) -> Path:
    """A folder of runs beside which a secret lies, with links to it."""
    (tmp_path / "secret").mkdir()
    for name in ("run.sqlite", "diagnosis.json"):
        (tmp_path / "secret" / name).write_bytes((folder / "sick" / name).read_bytes())
    shown = tmp_path / "shown"
    for name in ("sick", "holds_link"):
        (shown / name).mkdir(parents=True)
        (shown / name / "run.sqlite").write_bytes((folder / "sick" / "run.sqlite").read_bytes())
    (shown / "link").symlink_to(tmp_path / "secret")
    (shown / "holds_link" / "treatment.json").symlink_to("/etc/hostname")
    return shown


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_of_the_folder_is_served(name: str, with_links: Path) -> None:
    for client in serving(with_links):
        for path in (f"/run/{name}", f"/api/runs/{name}/view", f"/api/runs/{name}/report.html"):
            reply = client.get(path)
            assert reply.status in (400, 404), path
            assert b"sqlite" not in reply.body
        assert [row["id"] for row in client.get("/api/runs").json] == ["sick"]
        assert client.get("/run/sick").status == 200


@pytest.mark.parametrize(
    "target",
    ["/../run.sqlite", "//etc/passwd", "/run.sqlite", "/sick/run.sqlite", "/api", "/api/runs/", "/run/sick/", "*",
     "/api/runs/sick/view/x", "http://127.0.0.1/", "http://evil.example/", "/%zz", "/\\..\\x"],
)  # fmt: skip
def test_odd_targets_get_an_error_and_no_file(target: str, client: Client) -> None:
    status, body = raw(client, f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status in (400, 404)
    assert b"SQLite" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str, client: Client) -> None:
    reply = client.get("/api/runs/sick/view", method=method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_the_body(client: Client) -> None:
    whole, head = client.get("/api/runs/sick/view"), client.get("/api/runs/sick/view", method="HEAD")
    assert head.body == b""
    assert head.headers["Content-Length"] == str(len(whole.body))


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:9", None, 200),
        ("127.0.0.1", None, 200),
        ("127.5.5.5:80", None, 200),
        ("[::1]:8777", None, 200),
        ("LOCALHOST", "http://localhost", 200),
        ("localhost:9", "http://localhost:9", 200),
        ("evil.example", None, 403),
        ("localhost.evil.example", None, 403),
        ("127.0.0.1.nip.io", None, 403),
        ("10.0.0.1", None, 403),
        ("localhost:x", None, 403),
        ("", None, 403),
        ("[::1", None, 403),
        ("localhost:9", "http://evil.example", 403),
        ("localhost:9", "http://localhost:10", 403),
        ("localhost:9", "null", 403),
        ("localhost:9", "file://localhost:9", 403),
    ],
)
def test_only_own_names_and_own_pages_are_answered(
    host: str, origin: str | None, status: int, client: Client
) -> None:
    lines = [f"Host: {host}", *([] if origin is None else [f"Origin: {origin}"])]
    for path in ("/", "/api/runs"):
        assert raw(client, "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]))[0] == status


def test_no_host_and_two_hosts_are_refused(client: Client) -> None:
    assert raw(client, "GET / HTTP/1.0\r\n\r\n")[0] == 403
    assert raw(client, "GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n")[0] == 403


@pytest.mark.parametrize(
    "path", ["/", "/run/sick", "/api/runs", "/api/runs/sick/view", "/compare?runs=a,b", "/x"]
)
def test_without_the_token_nothing_is_told(path: str, closed: Client) -> None:
    joint = "&" if "?" in path else "?"
    for wrong in ("", f"{joint}token=", f"{joint}token=open+sesame", f"{joint}token=open+sesame!&token=x"):
        reply = closed.get(path + wrong)
        assert reply.status == 401
        assert b"sick" not in reply.body


def test_the_token_counts_in_the_query_and_in_the_headers(closed: Client) -> None:
    assert closed.get("/api/runs?token=open%20sesame!").status == 200
    assert closed.get("/api/runs", X_Unvanish_Token="open sesame!").status == 200  # noqa: S106 - of a test
    assert closed.get("/api/runs", Authorization="Bearer open sesame!").status == 200
    assert closed.server.url.endswith("?token=open%20sesame%21")


def test_any_other_host_wants_a_token() -> None:
    assert guard_for("127.0.0.1", None).token is None
    assert guard_for("localhost", None).token is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "my-host"):  # noqa: S104 - only asked about
        first, second = guard_for(host, None).token, guard_for(host, None).token
        assert first is not None and len(first) >= 30
        assert first != second
    open_guard = guard_for("0.0.0.0", "a token")  # noqa: S104 - only asked about
    assert open_guard.refusal("192.168.1.5:8777", None, "a token") is None
    assert open_guard.refusal("evil.example", None, "a token") is not None


def test_a_silent_and_a_chattering_client_keep_nobody_waiting(client: Client) -> None:
    idle = [socket.create_connection(client.server.server_address[:2]) for _ in range(20)]
    idle[0].sendall(b"GET / HTTP/1.1\r\nX: ")
    began = time.monotonic()
    assert client.get("/run/sick").status == 200
    assert raw(client, f"GET /{'a' * 70_000} HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 414
    many = "".join(f"X-{i}: 1\r\n" for i in range(200))
    assert raw(client, f"GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")[0] == 431
    assert raw(client, "\x16\x03\x01 nonsense\r\n\r\n")[0] in (0, 400)
    assert time.monotonic() - began < 10
    for one in idle:
        one.close()


def test_a_slow_run_keeps_only_those_waiting_who_ask_for_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, honest = threading.Event(), runs_module._view

    def slow(folder: Path) -> Any:
        if folder.name == "sick":
            go_on.wait(20)
        return honest(folder)

    monkeypatch.setattr(runs_module, "_view", slow)
    waiting = threading.Thread(target=client.get, args=("/api/runs/sick/view",))
    waiting.start()
    assert client.get("/api/runs/twin/view").status == 200
    assert waiting.is_alive()
    go_on.set()
    waiting.join()


def test_a_damaged_run_takes_no_other_along(tmp_path: Path, folder: Path) -> None:
    for name, data in (
        ("good", (folder / "sick" / "run.sqlite").read_bytes()),
        ("bad", b"SQLite format 3\0junk"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.sqlite").write_bytes(data)
    for client in serving(tmp_path):
        reply = client.get("/api/runs/bad/view")
        assert reply.status == 503
        assert "damaged" in reply.json["error"]
        assert [row["id"] for row in client.get("/api/runs").json] == ["good"]


def test_a_single_run_is_served_alone(folder: Path) -> None:
    for client in serving(folder / "sick"):
        assert client.server.url.endswith("/run/sick")
        assert [row["id"] for row in client.get("/api/runs").json] == ["sick"]
        assert client.get("/api/runs/twin/view").status == 404


def test_a_port_in_use_is_one_clear_line(client: Client, folder: Path) -> None:
    port = client.server.server_address[1]
    with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use by another program"):
        Server(Runs(folder), guard_for("127.0.0.1", None), port)


def raw(client: Client, request: str) -> tuple[int, bytes]:
    """The status and all bytes of the answer to a request that no library would send; 0 = closed without one."""
    with socket.create_connection(client.server.server_address[:2], timeout=20) as connection:
        connection.sendall(request.encode("latin-1"))
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
    whole = b"".join(parts)
    found = re.match(rb"HTTP/1\.[01] (\d+)", whole)
    return (int(found.group(1)) if found else 0), whole


def test_a_window_has_what_the_record_has_of_these_steps(client: Client, folder: Path) -> None:
    run = session.load(folder / "sick")
    model = run.models[0]
    reply = client.get(f"/api/runs/sick/window?model={model.info.name}&from=10&to=60")
    assert reply.status == 200
    told = reply.json
    assert told["loss"]["steps"] == list(range(10, 61))
    assert told["loss"]["values"] == pytest.approx(list(model.losses[10:61]), rel=1e-4)
    assert told["loss"]["exact"] and told["signal"]["exact"]
    assert told["signal"]["steps"] == [t.step for t in model.traces if 10 <= t.step <= 60]
    assert client.get(f"/api/runs/sick/window?model={model.info.name}&from=10&to=60", If_None_Match=reply.headers["ETag"]).status == 304  # fmt: skip


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("model=NAME&from=60&to=10", 400),
        ("model=NAME&from=-1&to=10", 400),
        ("model=NAME&from=x&to=10", 400),
        ("model=NAME&from=1", 400),
        ("model=NAME&from=1&from=2&to=3", 400),
        ("model=NAME&from=1&to=9999999999999999999", 400),
        ("model=other&from=1&to=2", 404),
        ("from=1&to=2", 404),
    ],
)
def test_a_window_that_is_none_is_refused(client: Client, folder: Path, query: str, status: int) -> None:
    name = session.load(folder / "sick").models[0].info.name
    reply = client.get(f"/api/runs/sick/window?{query.replace('NAME', name)}")
    assert (reply.status, set(reply.json)) == (status, {"error"})


def test_a_run_is_loaded_once_for_several_windows_and_let_go_later(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = session.load(folder / "sick").models[0].info.name
    loads: list[object] = []
    real = session.load
    monkeypatch.setattr(runs_module.session, "load", lambda path: (loads.append(path), real(path))[1])
    monkeypatch.setattr(runs_module, "LOADED_SECONDS", 0.4)
    for last in (20, 30, 40):
        assert client.get(f"/api/runs/sick/window?model={name}&from=1&to={last}").status == 200
    assert len(loads) == 1
    time.sleep(0.8)
    assert client.server.runs._loaded is None
