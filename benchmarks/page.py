"""What does the page of a run of 1,000 layers x 10,000 steps weigh, how long does it take, and how quick is it?

    python benchmarks/page.py [--layers 1000] [--steps 10000] [--traces 400]

The run is written by the store's own RunWriter and read back as `unvanish report` does; the page is then opened in
a headless Chromium: first paint, and frames a second while the pointer crosses the map, a module folds, a layer
opens. `--traces`: how many steps are traced, evenly (the probe's own schedule traces some forty; 400 fill the map).
Goals: 25 MB, 5 s to write, 1.5 s to the first paint, 50 frames a second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from record_scale import STEPS_A_WRITE, Plan, Stream

from unvanish import session
from unvanish.present.html import render_html
from unvanish.present.view import build_view
from unvanish.schema.graph import Trace
from unvanish.schema.run import Event, RunInfo, TraceEvent
from unvanish.store import RunWriter
from unvanish.store.ladder import Limits

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEASURED_EVERY = 16  # steps; the probe looks at the parameters of a net of this size less often still
FRAMES = """async (move) => {
  const times = [];
  const act = (0, eval)(move);
  await new Promise((done) => {
    let left = 90;
    const frame = (now) => {
      times.push(now);
      act(left);
      if (left-- > 0) requestAnimationFrame(frame);
      else done();
    };
    requestAnimationFrame(frame);
  });
  return times.slice(1).map((t, i) => t - times[i]);
}"""
HOVER = """(left) => {
  const canvas = document.querySelector("canvas.map"), box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new PointerEvent("pointermove", { bubbles: true,
    clientX: box.left + box.width * (0.3 + 0.005 * left), clientY: box.top + box.height * (0.1 + 0.008 * left) }));
}"""


OPEN = """(() => {
  const select = document.querySelector(".tools select");
  select.value = "500";
  select.dispatchEvent(new Event("change"));
})()"""


class Vanishing(Stream):
    """The events of record_scale, with a signal that fades from the output to the data."""

    def __init__(self, plan: Plan, traces: int) -> None:
        """`traces` steps are traced, evenly."""
        super().__init__(plan)
        self.every = max(plan.steps // traces, 1)
        last = len(self.stats) - 3  # the last linear layer
        self.output = last
        self.stats = tuple(
            replace(
                s,
                norm=10.0 ** ((s.operation - last) / 300),
                edge_norms=tuple(10.0 ** ((s.operation - 1 - last) / 300) for _ in s.edge_norms),
            )
            for s in self.stats
        )

    def writes(self) -> Iterator[tuple[int, list[Event]]]:
        """As the stream has them, with traces at every so many steps."""
        for done, events in super().writes():
            first = done - STEPS_A_WRITE
            steps = [s for s in range(first, done) if s % self.every == 0]
            yield done, [*events, *(TraceEvent(trace=self.trace(s)) for s in steps)]

    def trace(self, step: int) -> Trace:
        """The trace of one step."""
        return replace(super().trace(step), output=self.output)


def write_run(layers: int, steps: int, traces: int, folder: Path) -> None:
    """Write a run of that size."""
    plan = Plan(parameters=2 * layers, steps=steps, every=MEASURED_EVERY, limits=Limits(), traced=False)
    stream = Vanishing(plan, traces)
    info = RunInfo(
        id="page", created="", command=(), script=None, seed=None, versions={}, device="cpu", pid=os.getpid()
    )
    writer = RunWriter(folder, info)
    writer.write(stream.begin())
    for _, events in stream.writes():
        writer.write(events)
    writer.close("finished")


def timed(name: str, action: Callable[[], Any]) -> Any:
    """What the action gives, and its seconds on the terminal (of the wall, and of this process)."""
    wall, own = time.perf_counter(), time.process_time()
    made = action()
    wall, own = time.perf_counter() - wall, time.process_time() - own
    print(f"  {name:28} {wall:6.2f} s ({own:.2f} s of a core)", flush=True)
    return made


def look(page_file: Path) -> None:
    """Open the page, and say how soon it was painted and how smoothly it moves."""
    found = next((p for name in BROWSERS if (p := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(page_file.as_uri())
        page.wait_for_selector("main[data-ready='true'] [data-panel='signal'][data-drawn]")
        page.wait_for_timeout(1000)
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        load = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        print(f"  first paint {paint / 1000:.2f} s, whole page {load / 1000:.2f} s after it was asked for")
        page.locator("canvas.map").scroll_into_view_if_needed()
        frames(page, "nothing happens", "() => undefined")  # what this machine can do at most
        frames(page, "the pointer crosses the map", HOVER)
        frames(page, "the page scrolls", "() => window.scrollBy(0, 14)")
        for name, act in (
            ("fold all modules", "[...document.querySelectorAll('.tools button')][0].click()"),
            ("unfold them", "[...document.querySelectorAll('.tools button')][1].click()"),
            ("open a layer", OPEN),
        ):
            took = page.evaluate(
                f"() => {{ const t = performance.now(); {act}; return performance.now() - t; }}"
            )
            print(f"  {name:28} {took:6.0f} ms")
        browser.close()


def frames(page: Any, name: str, move: str) -> None:
    """Frames a second while something happens in each of them."""
    gaps = page.evaluate(FRAMES, move)
    print(f"  {name:28} {1000 / statistics.mean(gaps):6.0f} frames a second, longest {max(gaps):.0f} ms")


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--layers", type=int, default=1000)
    options.add_argument("--steps", type=int, default=10_000)
    options.add_argument("--traces", type=int, default=400)
    options.add_argument("--keep", type=Path, help="where to keep the page")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, file = Path(scratch) / "run", Path(scratch) / "page.html"
        print(f"{given.layers} layers x {given.steps} steps, {given.traces} of them traced")
        timed("write the run", lambda: write_run(given.layers, given.steps, given.traces, folder))
        run = timed("read it", lambda: session.load(folder))
        diagnosis = timed("diagnose it", lambda: session.diagnose(run))
        chains = timed("follow the chains", lambda: session.page_chains(run))
        view = timed("build the view", lambda: build_view(run, diagnosis, chains))
        text = timed("render the page", lambda: render_html(view))
        timed("write the page", lambda: file.write_text(text, encoding="utf-8"))
        print(f"  {file.stat().st_size / 1e6:.1f} MB")
        if given.keep:
            shutil.copy(file, given.keep)
        look(file)


if __name__ == "__main__":
    main()
