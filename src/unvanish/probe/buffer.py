"""A bounded queue between the training loop and the record: the loop puts, a background thread writes."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

from unvanish.probe.incidents import Incidents, words
from unvanish.probe.seams import Captures
from unvanish.schema.run import DROPPED, BlockEvent, Event, Skipped, Snapshot, StepEvent, TraceEvent

Lazy = Callable[[], Sequence[Event]]
FLUSH_SECONDS = (
    0.5  # a kill loses what came since; each flush costs a few milliseconds of the interpreter's lock
)
CAPACITY = 4096
DETAIL_BYTES = 32 * 2**20  # of traced samples may wait
WAKE_BYTES = 4 * 2**20  # so much is worth writing before its time
FIRST_PAUSE = 1.0  # seconds before a sink that failed is tried again; doubled each time it fails once more
LONGEST_PAUSE = 60.0
HOLD_SECONDS = 1.0  # a fork waits so long for a write to end: the child must not inherit SQLite's locks
MOST_THREADS = 3  # a writer's thread that died is replaced so often
CLOSE_SECONDS = 30.0  # at the end, a disk that does not answer is waited for so long
RETRY_BYTES = 8 * 2**20  # of events are kept while the sink fails
LAST_PAUSES = (
    0.1,
    0.3,
    0.9,
)  # seconds: at the end there is no later, e.g. for a lock that another process holds
# what is given up where these are more; the rest (models, graphs, incidents) explains what comes later
_GIVEN_UP: tuple[tuple[tuple[type, ...], str], ...] = (
    ((TraceEvent,), "traced passes"),
    ((Snapshot,), "snapshots of weights"),
    ((BlockEvent, StepEvent), "steps"),
)


def _quiet(_: str) -> None:
    """Nobody is told."""


class Buffer:
    """Takes lazy events from the training thread; turns them into numbers and writes them in the background.

    A lazy event is a function that reads its (small) tensors; it runs in the writer's thread, so that the
    training thread never waits for a device or a disk. Nothing here raises into the training loop. A sink that
    fails is tried again after a pause, with the same events; what would take too much memory until then is given
    up and counted, but for what explains later events (models, graphs, incidents).
    """

    def __init__(self, sink: Callable[[list[Event]], None], tell: Callable[[str], None] = _quiet) -> None:
        """`sink` stores events durably; one thread at a time calls it. `tell` shows the user one line."""
        self._sink = sink
        self.incidents = Incidents(tell)
        self._queue: queue.Queue[tuple[Lazy, int]] = queue.Queue()
        self.detail_bytes = DETAIL_BYTES
        self._came, self._went = 0, 0  # bytes of detail; each is written by one side only
        self._stop = self._closed = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._held = False
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._threads = 0
        self.sources: list[Callable[[], Sequence[Event]]] = []  # asked at each flush for what they have
        self.busy = 0.0  # seconds of a core that the sources have taken
        self.captures = Captures()  # while a CUDA graph is captured, nothing may be read from a device
        self.fault: str | None = None  # why the last write failed; None = it did not
        self.unsaved: list[Event] = []  # to be offered again
        self._pause = FIRST_PAUSE
        self._again_at = 0.0

    @property
    def dropped(self) -> int:
        """How many events were given up."""
        return self.incidents.dropped

    def start(self) -> None:
        """Start the writer's thread."""
        self._threads += 1
        self._thread = threading.Thread(target=self._loop, name="unvanish-record", daemon=True)
        self._thread.start()

    # --- the training thread -------------------------------------------------------------------------------

    def put(self, lazy: Lazy, *, detail: int = 0) -> bool:
        """Hand over events; `detail` = the bytes that a traced step holds until it is written.

        When the writer lags, traced detail is dropped first, and counted (False); nothing ever waits.
        """
        waiting = self._came - self._went
        full = detail and waiting and waiting + detail > self.detail_bytes
        if full or self._queue.qsize() >= CAPACITY:
            self.incidents.drop("traced passes" if detail else "events")
            return False
        self._came += detail
        self._queue.put_nowait((lazy, detail))
        if waiting + detail > WAKE_BYTES:
            self.wake()
        return True

    def wake(self) -> None:
        """There is enough to be written before its time."""
        if self._thread is not None and not self._thread.is_alive():
            self._replace_thread()
        self._wake.set()

    def _replace_thread(self) -> None:
        if not self._stop and self._threads < MOST_THREADS and os.getpid() == self._pid:
            self.start()

    # --- the writer's thread -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything that waits, now, in the calling thread. After `close`, nothing does."""
        if os.getpid() == self._pid and not self._closed:
            with self._lock:
                self._flush(last=False)

    def _flush(self, *, last: bool) -> None:
        events = self.unsaved  # so that what is collected survives what may be raised here and is not for us
        with self.captures.reading:
            if self.captures.active and not last:
                return
            self._collect(events)
        self._add(self.incidents.take, events)
        if last:
            self._add(self.incidents.farewell, events)
        if events:
            self._store(events, now=last)

    def _collect(self, events: list[Event]) -> None:
        for _ in range(self._queue.qsize()):
            lazy, detail = self._queue.get_nowait()
            self._went += detail
            self._add(lazy, events)
            del lazy  # and the samples that it holds
        began = time.thread_time()
        for source in self.sources:
            self._add(source, events)
        self.busy += time.thread_time() - began

    def _add(self, lazy: Lazy, events: list[Event]) -> None:
        try:
            events.extend(lazy())
        except Exception as error:  # a probe must never hurt the training it watches
            self.incidents.fault("record", error)

    def _store(self, events: list[Event], *, now: bool) -> None:
        """Offer events to the sink. While that fails, only `now` tries it before its time."""
        if self.fault is not None and not now and time.monotonic() < self._again_at:
            self.unsaved = self._bounded(events)
            return
        try:
            self._sink(events)
        except Exception as error:  # e.g. a full disk: training goes on, the diagnosis says so
            self._pause = FIRST_PAUSE if self.fault is None else min(2 * self._pause, LONGEST_PAUSE)
            self._again_at = time.monotonic() + self._pause
            self.incidents.fault("record", error)
            self.fault = words(error)
            self.unsaved = self._bounded([*events, *self.incidents.take()])
        else:
            self.fault, self.unsaved = None, []

    def _bounded(self, events: list[Event], *, all_of_it: bool = False) -> list[Event]:
        """What is kept to be offered again, RETRY_BYTES at most: traces are given up first, then the oldest steps."""
        sizes = [_size(event) for event in events]
        over, gone = sum(sizes) - (0 if all_of_it else RETRY_BYTES), set[int]()
        for kinds, name in _GIVEN_UP:
            for i, event in enumerate(events):
                if over <= 0:
                    break
                if isinstance(event, kinds):
                    over -= sizes[i]
                    gone.add(i)
                    self.incidents.drop(name, len(event.steps) if isinstance(event, BlockEvent) else 1)
        return [event for i, event in enumerate(events) if i not in gone] if gone else events

    # --- around a fork -------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Before a fork: wait, not for long, until nothing is being written; nothing is until `go_on`."""
        self._held = self._lock.acquire(timeout=HOLD_SECONDS)

    def go_on(self) -> None:
        """Write again."""
        if self._held:
            self._held = False
            self._lock.release()

    # --- the end -------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Stop the thread and write what is left. False: the disk does not answer, and what waits is lost."""
        self._stop = True
        self._wake.set()
        if os.getpid() != self._pid:
            return True
        if self._thread is not None:
            self._thread.join(timeout=CLOSE_SECONDS)
        self._closed = True
        if not self._lock.acquire(timeout=1.0):
            self.fault = f"the disk did not answer for {CLOSE_SECONDS:.0f} seconds"
            return False
        try:
            self._flush(last=True)
            self._insist()
            if self.fault is not None:  # the session says what could not be written, but holds no numbers
                told = [e for e in self._bounded(self.unsaved, all_of_it=True) if not _says_dropped(e)]
                self.unsaved = [*told, *self.incidents.farewell()]
        finally:
            self._lock.release()
        return True

    def _insist(self) -> None:
        """At the end a failed write is tried again at once: what a moment's trouble refuses is not lost."""
        for pause in LAST_PAUSES:
            if self.fault is None:
                return
            time.sleep(pause)
            self._store(self.unsaved, now=True)

    def _loop(self) -> None:
        try:
            while True:
                self._wake.wait(FLUSH_SECONDS)
                if self._stop:
                    return
                self._wake.clear()
                self.flush()
        except BaseException as error:  # e.g. SystemExit: `wake` puts another thread in its place
            self.incidents.fault("the writer's thread", error)


def _size(event: Event) -> int:
    """About the bytes that it takes."""
    if isinstance(event, BlockEvent):
        return 600 + 64 * len(event.steps) + event.stats.itemsize * len(event.stats)
    if isinstance(event, TraceEvent):
        in_time = sum(200 + 32 * len(t.norms) for t in event.trace.through_time)
        return 600 + 900 * len(event.trace.stats) + in_time
    return 600


def _says_dropped(event: Event) -> bool:
    return isinstance(event, Skipped) and event.what == DROPPED
