"""A bounded queue between the training loop and the record: the loop puts, a background thread writes."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

from unvanish.schema.run import Event, Incident

Lazy = Callable[[], Sequence[Event]]
FLUSH_SECONDS = 0.25
CAPACITY = 4096
DETAIL_BYTES = 32 * 2**20  # of traced samples may wait
PAUSE_SECONDS = 1.0  # a fork waits so long for a write to end: the child must not inherit SQLite's locks
WAKE_BYTES = 4 * 2**20  # so much is worth writing before its time


class Buffer:
    """Takes lazy events from the training thread; turns them into numbers and writes them in the background.

    A lazy event is a function that reads its (small) tensors; it runs in the writer's thread, so that the
    training thread never waits for a device or a disk. Nothing here raises into the training loop: the
    first fault of the sink is kept as an incident (`fault`), and later events are counted and dropped.
    """

    def __init__(self, sink: Callable[[list[Event]], None]) -> None:
        """`sink` stores events durably; it is called from one thread only."""
        self._sink = sink
        self._queue: queue.Queue[tuple[Lazy, int]] = queue.Queue()
        self.detail_bytes = DETAIL_BYTES
        self._waiting = 0  # bytes of detail that wait
        self._stop = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._paused = False
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self.sources: list[Callable[[], Sequence[Event]]] = []  # asked at each flush for what they have
        self.busy = 0.0  # seconds of a core that the sources have taken
        self.dropped = 0
        self.fault: str | None = None

    def start(self) -> None:
        """Start the writer's thread."""
        self._thread = threading.Thread(target=self._loop, name="unvanish-record", daemon=True)
        self._thread.start()

    def put(self, lazy: Lazy, *, detail: int = 0) -> None:
        """Hand over events; `detail` = the bytes that a traced step holds until it is written.

        When the writer lags, traced detail is dropped first, and counted; nothing ever waits.
        """
        full = detail and self._waiting and self._waiting + detail > self.detail_bytes
        if self.fault is not None or full or self._queue.qsize() >= CAPACITY:
            self.dropped += 1
            return
        self._waiting += detail
        self._queue.put_nowait((lazy, detail))
        if self._waiting > WAKE_BYTES:
            self._wake.set()

    def wake(self) -> None:
        """There is enough to be written before its time."""
        self._wake.set()

    def flush(self) -> None:
        """Write everything that waits, now, in the calling thread."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            events: list[Event] = []
            for _ in range(self._queue.qsize()):
                lazy, detail = self._queue.get_nowait()
                _add(lazy, events)
                self._waiting -= detail
                del lazy  # and the samples that it holds
            began = time.thread_time()
            for source in self.sources:
                _add(source, events)
            self.busy += time.thread_time() - began
            if events and self.fault is None:
                try:
                    self._sink(events)
                except Exception as error:  # e.g. a full disk: training goes on, the diagnosis says so
                    self.fault = _words(error)
                    self.dropped += len(events)

    def pause(self) -> None:
        """Before a fork: wait, not for long, until nothing is being written; nothing is until `resume`."""
        self._paused = self._lock.acquire(timeout=PAUSE_SECONDS)

    def resume(self) -> None:
        """Write again."""
        if self._paused:
            self._paused = False
            self._lock.release()

    def close(self) -> None:
        """Stop the thread and write what is left."""
        self._stop = True
        self._wake.set()
        if self._thread is not None and os.getpid() == self._pid:
            self._thread.join(timeout=30)
        self.flush()

    def _loop(self) -> None:
        while True:
            self._wake.wait(FLUSH_SECONDS)
            if self._stop:
                return
            self._wake.clear()
            self.flush()


def _add(lazy: Lazy, events: list[Event]) -> None:
    try:
        events.extend(lazy())
    except Exception as error:  # a probe must never hurt the training it watches
        events.append(Incident(step=-1, where="record", what=_words(error)))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
