"""What is shown of the runs: the list, a run's view, several compared. Read from their records, kept a while."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unvanish import session
from unvanish.errors import RecordError, UsageError
from unvanish.present.compare import differences
from unvanish.present.html import render_html
from unvanish.present.live_text import LiveModel, live_models
from unvanish.present.view import build_window
from unvanish.schema.run import Run, RunStatus
from unvanish.serving.kept import Answer, Kept, Signature, as_json
from unvanish.serving.places import NotServedError, Places, signature
from unvanish.store import load_result

MOST_KEPT = 12  # views
MOST_COMPARED = 8
LOADED_SECONDS = 60.0  # after the last zoom into a run, until it is read anew for the next
_WORST = ("sick", "not_learning", "inconclusive", "healthy")


@dataclass(frozen=True, slots=True)
class Brief:
    """A run in one line of the list. None = not known yet."""

    verdict: str | None = None
    steps: int | None = None
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Of a view: the line in the list, and what a comparison needs of it beside its text."""

    brief: Brief
    maps: dict[str, Any]  # the view, with nothing in it but its run and its models' signal maps
    live: tuple[LiveModel, ...]  # what a terminal draws of it


class Runs:
    """All that a server answers of a folder of runs. Safe to ask from any thread."""

    def __init__(self, folder: str | Path) -> None:
        """RecordError where there is no such folder."""
        self.places = Places(folder)
        self._lock = threading.Lock()
        self._views: OrderedDict[str, Kept[Seen]] = OrderedDict()
        self._loaded: tuple[str, Signature, Run] | None = (
            None  # of the last window: the next is of the same run
        )
        self._loading = threading.Lock()
        self._forgetting: threading.Timer | None = None
        self._briefs: dict[str, tuple[Signature, Brief]] = {}
        self._waiting: set[str] = set()
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="unvanish-briefs")

    def view(self, name: str) -> Answer[Seen]:
        """A run as the page draws it. NotServedError, RecordError."""
        return self._kept(name).get()

    def _kept(self, name: str) -> Kept[Seen]:
        folder = self.places.find(name)
        with self._lock:
            kept = self._views.pop(name, None) or Kept(lambda: signature(folder), lambda: _view(folder))
            self._views[name] = kept
            while len(self._views) > MOST_KEPT:
                self._views.popitem(last=False)
        return kept

    def listed(self) -> bytes:
        """The list of runs, the newest first. What is not known yet of a run comes with a later call."""
        rows = []
        for place, info, status in self.places.listed():
            brief = self._brief(place, status)
            rows.append(
                {
                    "id": place.name,
                    "name": Path(info.script).name if info.script else info.id,
                    "created": info.created,
                    "status": status,
                    "verdict": brief.verdict,
                    "steps": brief.steps,
                    "loss": brief.loss,
                }
            )
        return as_json(rows)

    def compared(self, names: Sequence[str]) -> bytes:
        """Several runs: their views, and how the maps of the others differ from the first one's. UsageError."""
        names = list(dict.fromkeys(names))
        if not 2 <= len(names) <= MOST_COMPARED:
            raise UsageError(
                f"a comparison takes 2 to {MOST_COMPARED} different runs, and got {len(names)}",
                "ask as compare?runs=A,B",
            )
        views = [self.view(name) for name in names]
        found = differences([view.extra.maps for view in views])
        parts = (
            b'{"kind":"compare","runs":[',
            b",".join(view.body for view in views),
            b'],"differences":',
            as_json(found),
            b"}",
        )
        return b"".join(parts)

    def window(self, name: str, model: str, first: int, last: int) -> bytes:
        """Some steps of a model, as they were recorded. NotServedError, RecordError, UsageError."""
        run = self._run(name)
        found = next((m for m in run.models if m.info.name == model), None)
        if found is None:
            raise NotServedError("this run has no such model", "ask for one that its view names")
        if first > last:
            raise UsageError(f"the window ends at step {last}, before it begins at {first}", "swap the two")
        return as_json(build_window(found, first, last))

    def _run(self, name: str) -> Run:
        """The run, read anew where it has changed since the last window."""
        folder = self.places.find(name)
        with self._loading:
            now = signature(folder)
            if self._loaded is None or self._loaded[:2] != (name, now):
                self._loaded = None  # not two big runs at once
                self._loaded = (name, now, session.load(folder))
            if self._forgetting is not None:
                self._forgetting.cancel()
            self._forgetting = threading.Timer(LOADED_SECONDS, self._forget)
            self._forgetting.daemon = True
            self._forgetting.start()
            return self._loaded[2]

    def _forget(self) -> None:
        with self._loading:
            self._loaded = None

    def report(self, name: str) -> bytes:
        """The self-contained page of a run."""
        return render_html(json.loads(self.view(name).body)).encode("utf-8", "backslashreplace")

    def close(self) -> None:
        """Begin nothing more."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._behind.shutdown(wait=False, cancel_futures=True)

    def _brief(self, folder: Path, status: RunStatus) -> Brief:
        """From the diagnosis that is kept with the run, else from its view; made behind the reader's back."""
        now = signature(folder, status)
        with self._lock:
            known = self._briefs.get(folder.name)
        if known is not None and known[0] == now:
            return known[1]
        brief = None if status == "running" else _kept_diagnosis(folder)
        if brief is not None:
            with self._lock:
                self._briefs[folder.name] = (now, brief)
            return brief
        with self._lock:
            begin = folder.name not in self._waiting
            self._waiting.add(folder.name)
        if begin:
            try:
                self._behind.submit(self._look, folder.name, now)
            except RuntimeError:  # it is being shut down
                return Brief()
        return Brief() if known is None else known[1]

    def _look(self, name: str, now: Signature) -> None:
        made_of: Signature | None = now
        try:
            kept = self._kept(name)
            brief, made_of = kept.get().extra.brief, kept.made_of
        except Exception:  # noqa: BLE001 - a run that can't be shown has an empty line, the others theirs
            brief = Brief()
        with self._lock:
            self._briefs[name] = (made_of or now, brief)
            self._waiting.discard(name)


def _view(folder: Path) -> Answer[Seen]:
    run = session.load(folder)
    view = session.page_view(run)
    seconds = {m.info.name: m.seconds[-1] for m in run.models if m.seconds}
    maps = {
        "run": {"id": view["run"]["id"]},
        "models": [{"name": m["name"], "signal": m["signal"]} for m in view["models"]],
    }
    return Answer.of(as_json(view), Seen(_brief_of_view(view), maps, live_models(view, seconds)))


def _brief_of_view(view: dict[str, Any]) -> Brief:
    models = sorted(view["models"], key=lambda m: _WORST.index(m["verdict"]))
    if not models:
        return Brief(verdict=view["verdict"], steps=0)
    loss = models[0]["loss"]
    return Brief(verdict=view["verdict"], steps=loss["recorded"], loss=loss["last"])


def _kept_diagnosis(folder: Path) -> Brief | None:
    try:
        told = json.loads(load_result(folder, "diagnosis.json") or "null")
        if told is None or not told["models"]:
            return None
        worst = min(told["models"], key=lambda m: _WORST.index(m["verdict"]))
        steps, loss = int(worst["steps"]), worst["loss"]["last"]
        return Brief(str(told["verdict"]), steps, None if loss is None else float(loss))
    except (RecordError, KeyError, TypeError, ValueError, AttributeError):
        return None
