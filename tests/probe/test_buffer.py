"""The queue between the training loop and the record."""

from __future__ import annotations

import os
import threading
import time
from array import array
from typing import Any

import pytest

from unvanish.probe import buffer as buffer_module
from unvanish.probe.buffer import CAPACITY, DETAIL_BYTES, Buffer
from unvanish.probe.incidents import MOST_KINDS, Incidents
from unvanish.schema.graph import Trace
from unvanish.schema.run import BlockEvent, Event, Incident, Skipped, TraceEvent


def event(number: int) -> Incident:
    return Incident(step=number, where="test", what="")


def test_order_is_kept_and_nothing_waits_for_close() -> None:
    got: list[Event] = []
    buffer = Buffer(got.extend)
    buffer.start()
    for i in range(100):
        buffer.put(lambda i=i: [event(i)])  # type: ignore[misc]
    until = time.monotonic() + 5
    while len(got) < 100 and time.monotonic() < until:
        time.sleep(0.01)
    assert [e.step for e in got] == list(range(100))  # type: ignore[union-attr]
    buffer.close()


def test_detail_is_dropped_before_steps_and_what_was_dropped_is_counted() -> None:
    buffer = Buffer(lambda events: None)
    size = DETAIL_BYTES // 10
    for i in range(40):
        buffer.put(lambda i=i: [event(i)], detail=size if i % 2 == 0 else 0)  # type: ignore[misc]
    assert buffer.dropped == 10
    kept: list[Event] = []
    buffer._sink = kept.extend
    buffer.flush()
    steps = [e.step for e in kept]  # type: ignore[union-attr]
    assert set(range(1, 40, 2)) <= set(steps)  # every step's own event is there
    buffer.put(lambda: [event(99)], detail=2 * DETAIL_BYTES)  # one alone is let through, however large
    assert buffer.dropped == 10


def test_the_queue_is_bounded() -> None:
    buffer = Buffer(lambda events: None)
    for i in range(CAPACITY + 5):
        buffer.put(lambda i=i: [event(i)])  # type: ignore[misc]
    assert buffer.dropped == 5


def test_sources_are_asked_at_each_flush_and_their_time_is_kept() -> None:
    got: list[Event] = []
    buffer = Buffer(got.extend)
    waiting = [event(1), event(2)]

    def source() -> list[Event]:
        taken = list(waiting)
        waiting.clear()
        return taken  # type: ignore[return-value]

    buffer.sources.append(source)
    buffer.flush()
    buffer.flush()
    assert [e.step for e in got] == [1, 2]  # type: ignore[union-attr]
    assert buffer.busy > 0


def block(first: int, last: int) -> BlockEvent:
    steps = range(first, last)
    none, zeros = array("d"), array("d", [0.0] * len(steps))
    return BlockEvent(
        model=0, steps=array("q", steps), seconds=zeros, losses=zeros, clips=zeros, learning_rates=zeros,
        measured=array("q"), stats=none,
    )  # fmt: skip


class Disk:
    """A sink that is full until it is not."""

    def __init__(self) -> None:
        self.full, self.tried, self.kept = True, 0, list[Event]()

    def __call__(self, events: list[Event]) -> None:
        self.tried += 1
        if self.full:
            raise OSError("no space")
        self.kept += events


def test_a_sink_that_fails_is_told_once_tried_again_and_gets_everything() -> None:
    disk, told = Disk(), list[str]()
    buffer = Buffer(disk, told.append)
    buffer.put(lambda: [event(0), block(0, 7)])
    buffer.flush()
    assert buffer.fault == "OSError: no space"
    for i in range(1, 50):
        buffer.put(lambda i=i: [event(i), block(7 * i, 7 * i + 7)])  # type: ignore[misc]
        buffer.flush()
    assert disk.tried == 1, "a disk that fails is left alone for a while"
    assert len(told) == 1 and "no space" in told[0]
    disk.full = False
    buffer._again_at = 0.0
    buffer.flush()
    assert buffer.fault is None and not buffer.unsaved
    assert [e.steps[0] for e in disk.kept if isinstance(e, BlockEvent)] == list(range(0, 350, 7))
    assert any(isinstance(e, Incident) and "no space" in e.what for e in disk.kept)
    buffer.close()
    assert buffer.dropped == 0


def test_at_the_end_a_moments_trouble_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, waited = Disk(), list[float]()

    def wait(seconds: float) -> None:
        waited.append(seconds)
        disk.full = len(waited) < 2

    monkeypatch.setattr(buffer_module.time, "sleep", wait)
    buffer = Buffer(disk)
    buffer.put(lambda: [event(0), block(0, 7)])
    assert buffer.close()
    assert waited == [0.1, 0.3] and buffer.fault is None and not buffer.unsaved
    assert [list(e.steps) for e in disk.kept if isinstance(e, BlockEvent)] == [list(range(7))]
    assert any(isinstance(e, Incident) and "no space" in e.what for e in disk.kept)


def test_what_waits_for_a_full_disk_is_bounded_and_traces_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "RETRY_BYTES", 60_000)
    disk = Disk()
    buffer = Buffer(disk)
    trace = TraceEvent(trace=Trace(model=0, step=0, backward=0, graph="", loss=0.0, stats=(), output=None))
    for i in range(50):
        buffer.put(lambda i=i: [event(i), trace, block(7 * i, 7 * i + 7)])  # type: ignore[misc]
        buffer.flush()
    kept = buffer.unsaved
    assert sum(map(buffer_module._size, kept)) <= 60_000
    assert len([e for e in kept if isinstance(e, Incident) and e.where == "test"]) == 50
    assert not any(isinstance(e, TraceEvent) for e in kept)
    blocks = [e for e in kept if isinstance(e, BlockEvent)]
    assert 0 < len(blocks) < 50 and blocks[-1].steps[-1] == 349, "the newest are kept"
    disk.full = False
    buffer.close()
    (lost,) = [e for e in disk.kept if isinstance(e, Skipped)]
    assert "50 traced passes" in lost.why and f"{350 - 7 * len(blocks)} steps" in lost.why


def test_the_pauses_grow() -> None:
    disk = Disk()
    buffer = Buffer(disk)
    pauses = []
    for i in range(9):
        buffer.put(lambda i=i: [event(i)])  # type: ignore[misc]
        buffer._again_at = 0.0
        began = time.monotonic()
        buffer.flush()
        pauses.append(round(buffer._again_at - began))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_thread_that_dies_is_replaced_and_that_is_told() -> None:
    got: list[Event] = []
    deaths = [0]

    def sink(events: list[Event]) -> None:
        if deaths[0] < 2:
            deaths[0] += 1
            raise SystemExit("somebody ends this thread")
        got.extend(events)

    told: list[str] = []
    buffer = Buffer(sink, told.append)
    buffer.start()
    until = time.monotonic() + 20
    number = 0
    while not got and time.monotonic() < until:
        buffer.put(lambda i=number: [event(i)])  # type: ignore[misc]
        buffer.wake()
        number += 1
        time.sleep(0.01)
    buffer.close()
    assert deaths[0] == 2 and len(told) == 1 and "somebody ends this thread" in told[0]
    assert [e.step for e in got if isinstance(e, Incident) and e.where == "test"] == list(range(number))


def test_a_disk_that_never_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_module, "CLOSE_SECONDS", 0.2)
    hung = threading.Event()
    buffer = Buffer(lambda events: bool(hung.wait(30)) and None)
    buffer.put(lambda: [event(0)])
    buffer.start()
    buffer.wake()
    time.sleep(0.1)
    began = time.monotonic()
    assert not buffer.close()
    assert time.monotonic() - began < 5 and "did not answer" in (buffer.fault or "")
    hung.set()


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_what_is_not_for_us_passes_and_nothing_is_lost(signal: type[BaseException]) -> None:
    got: list[Event] = []
    pending: list[type[BaseException]] = [signal]

    def sink(events: list[Event]) -> None:
        if pending:
            raise pending.pop()
        got.extend(events)

    buffer = Buffer(sink)
    buffer.put(lambda: [event(0)])
    with pytest.raises(signal):
        buffer.flush()
    buffer.put(lambda: [event(1)])
    buffer.flush()
    assert [e.step for e in got] == [0, 1]  # type: ignore[union-attr]


def test_the_same_fault_is_kept_once_and_counted() -> None:
    got: list[Event] = []
    told: list[str] = []
    buffer = Buffer(got.extend, told.append)

    def broken() -> Any:
        raise ValueError("no number")

    for _ in range(1000):
        buffer.put(broken)
        buffer.flush()
    buffer.close()
    first, last = [e for e in got if isinstance(e, Incident)]
    assert "no number" in first.what and last.what == "ValueError: 999 times more, the last here"
    assert len(told) == 1


def test_kinds_of_faults_are_bounded_and_telling_may_fail() -> None:
    def tell(text: str) -> None:
        raise RuntimeError("warnings are errors here")

    incidents = Incidents(tell)
    for i in range(500):
        incidents.fault(f"place {i}", ValueError(str(i)), i)
    assert len(incidents.take()) == MOST_KINDS
    (others,) = [e for e in incidents.farewell() if isinstance(e, Incident)]
    assert "480 times more" in others.what and others.step == 499


def test_an_event_that_can_not_be_read_becomes_an_incident() -> None:
    got: list[Event] = []
    buffer = Buffer(got.extend)

    def broken() -> Any:
        raise ValueError("no number")

    buffer.put(broken)
    buffer.put(lambda: [event(7)])
    buffer.flush()
    assert [type(e) for e in got] == [Incident, Incident]
    assert any("no number" in e.what for e in got)  # type: ignore[union-attr]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing() -> None:
    got: list[Event] = []
    buffer = Buffer(got.extend)
    buffer.put(lambda: [event(0)])
    child = os.fork()
    if child == 0:
        buffer.flush()
        os._exit(len(got))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    buffer.flush()
    assert len(got) == 1
