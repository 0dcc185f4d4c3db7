"""One answer that is made anew when its source has changed, and at most so often."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

LEAST_SECONDS = 1.0  # between two makings
SHARE = 0.1  # of one core's time that the making takes, at most
PATIENCE_SECONDS = 1.0  # so long a reader waits for a newer answer while there is an older one

Signature = tuple[object, ...]
K = TypeVar("K")
_slots = threading.Semaphore(3)  # big runs side by side; more would only slow each other down


@dataclass(frozen=True, slots=True)
class Answer(Generic[K]):
    """What is sent, with its ETag (of the bytes: it changes when, and only when, they do), and what else was seen."""

    body: bytes
    etag: str
    extra: K

    @classmethod
    def of(cls, body: bytes, extra: K) -> Answer[K]:
        """With the ETag of its body."""
        return cls(body, etag_of(body), extra)


def as_json(value: Any) -> bytes:
    """JSON for the wire: compact, in ASCII, so that half a surrogate pair can pass. ValueError: it holds a NaN."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def etag_of(body: bytes) -> str:
    """A strong ETag."""
    return f'"{sha256(body).hexdigest()[:32]}"'


class Kept(Generic[K]):
    """The newest answer of one source. Safe to ask from any thread.

    The first reader waits until it is made; later ones get the one there is when a newer takes long.
    """

    def __init__(self, signature: Callable[[], Signature], make: Callable[[], Answer[K]]) -> None:
        """`signature` is cheap, and other when there is something new; `make` may take seconds."""
        self._signature, self._make = signature, make
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        self._answer: Answer[K] | None = None
        self._made_of: Signature | None = None
        self._next = 0.0

    @property
    def made_of(self) -> Signature | None:
        """The signature of what the newest answer was made of."""
        return self._made_of

    def get(self) -> Answer[K]:
        """The answer, not older than it has to be. Raises what the first making raised."""
        if self._answer is None:
            with self._busy:
                if self._answer is None:
                    self._renew()
            return self._there()
        with self._lock:
            due = time.monotonic() >= self._next
            if due:
                self._next = time.monotonic() + LEAST_SECONDS  # nobody else looks meanwhile
        if due and self._signature() != self._made_of and self._busy.acquire(blocking=False):
            worker = threading.Thread(target=self._renew_and_release, daemon=True)
            worker.start()
            worker.join(PATIENCE_SECONDS)
        return self._there()

    def _there(self) -> Answer[K]:
        assert self._answer is not None  # noqa: S101 - made above, or that has raised
        return self._answer

    def _renew_and_release(self) -> None:
        try:
            self._renew()
        except Exception:  # noqa: BLE001 - a record that is being moved or cut: the last good answer stands
            with self._lock:
                self._next = time.monotonic() + 5 * LEAST_SECONDS
        finally:
            self._busy.release()

    def _renew(self) -> None:
        with _slots:
            began = time.monotonic()
            signature = self._signature()  # before the making: what comes in between is new the next time
            answer = self._make()
            seconds = time.monotonic() - began
        with self._lock:
            self._answer, self._made_of = answer, signature
            self._next = time.monotonic() + max(LEAST_SECONDS, seconds / SHARE)
