"""A bounded queue between the training loop and the record: the loop puts, a background thread writes."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

from unvanish.schema.run import Event, Incident

Lazy = Callable[[], Sequence[Event]]
FLUSH_SECONDS = 0.25
CAPACITY = 4096


class Buffer:
    """Takes lazy events from the training thread; turns them into numbers and writes them in the background.

    A lazy event is a function that reads its (small) tensors; it runs in the writer's thread, so that the
    training thread never waits for a device or a disk. Nothing here raises into the training loop: the
    first fault of the sink is kept as an incident (`fault`), and later events are counted and dropped.
    """

    def __init__(self, sink: Callable[[list[Event]], None]) -> None:
        """`sink` stores events durably; it is called from one thread only."""
        self._sink = sink
        self._queue: queue.Queue[tuple[Lazy, bool]] = queue.Queue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        self.fault: str | None = None

    def start(self) -> None:
        """Start the writer's thread."""
        self._thread = threading.Thread(target=self._loop, name="unvanish-record", daemon=True)
        self._thread.start()

    def put(self, lazy: Lazy, *, detail: bool = False) -> None:
        """Hand over events. When the writer lags, traced detail is dropped first, and counted."""
        waiting = self._queue.qsize()
        if self.fault is not None or waiting >= CAPACITY or (detail and waiting >= CAPACITY // 2):
            self.dropped += 1
            return
        self._queue.put_nowait((lazy, detail))

    def flush(self) -> None:
        """Write everything that waits, now, in the calling thread."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            events: list[Event] = []
            while True:
                try:
                    lazy, _ = self._queue.get_nowait()
                except queue.Empty:
                    break
                try:
                    events.extend(lazy())
                except Exception as error:  # a probe must never hurt the training it watches
                    events.append(Incident(step=-1, where="record", what=_words(error)))
            if events and self.fault is None:
                try:
                    self._sink(events)
                except Exception as error:  # e.g. a full disk: training goes on, the diagnosis says so
                    self.fault = _words(error)
                    self.dropped += len(events)

    def close(self) -> None:
        """Stop the thread and write what is left."""
        self._stop.set()
        if self._thread is not None and os.getpid() == self._pid:
            self._thread.join(timeout=30)
        self.flush()

    def _loop(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self.flush()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
