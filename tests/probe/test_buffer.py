"""The queue between the training loop and the record."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from unvanish.probe.buffer import CAPACITY, DETAIL_BYTES, Buffer
from unvanish.schema.run import Event, Incident


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


def test_a_sink_that_fails_is_kept_as_a_fault_and_not_raised() -> None:
    def full(events: list[Event]) -> None:
        raise OSError("no space")

    buffer = Buffer(full)
    buffer.put(lambda: [event(0)])
    buffer.flush()
    assert buffer.fault == "OSError: no space"
    buffer.put(lambda: [event(1)])
    buffer.close()
    assert buffer.dropped == 2


def test_an_event_that_can_not_be_read_becomes_an_incident() -> None:
    got: list[Event] = []
    buffer = Buffer(got.extend)

    def broken() -> Any:
        raise ValueError("no number")

    buffer.put(broken)
    buffer.put(lambda: [event(7)])
    buffer.flush()
    assert [type(e) for e in got] == [Incident, Incident]
    assert "no number" in got[0].what  # type: ignore[union-attr]


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
