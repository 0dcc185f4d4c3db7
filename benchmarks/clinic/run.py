"""How often is the diagnosis right? Every case of the clinic, watched by `unvanish run`, beside fixed thresholds.

    python benchmarks/clinic/run.py [NAME ...] [--part tune|report] [--seeds 3] [--jobs 2] [--write docs/clinic.md]
        [--torchmortem PYTHON] [--keep DIR]

Rules are tuned on the part called `tune`, and figures are reported for the other, which was written by others than
the rules' author and not read by who writes rules (labels.HELD_OUT). What each label rests on: prove.py. With the python of an environment that has
torchmortem, that is asked, too, of the reported cases and with one seed: it makes a training several times slower
(mortem.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from labels import Case, all_cases
from thresholds import THRESHOLDS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tables import table

import unvanish
from unvanish import session
from unvanish.schema.run import Run
from unvanish.store import read_run

README = Path(__file__).resolve().parents[2] / "README.md"
TIMEOUT = 300  # seconds
RECALL, PRECISION = "recall: sick cases called sick", "precision: called sick and sick"
CAUSE, LAYER = "cause right, sick cases", "a right layer first, sick cases"
ALARMS = "healthy cases with a critical finding"
MORTEM = ("torchmortem 0.1.1, critical", "torchmortem 0.1.1, any warning")
WINDOWS = (10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400)
BINS = ((0.0, 0.6), (0.6, 0.75), (0.75, 0.85), (0.85, 0.92), (0.92, 1.01))  # of confidence


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one run of one case came to."""

    case: Case
    seed: int
    verdict: str
    kind: str = ""
    cause: str = ""
    layer: str = ""
    confidence: float = 0.0
    severity: str = ""
    detected: int | None = None  # steps after which the right kind stands
    reason: str = ""
    alarms: dict[str, bool] = field(default_factory=dict)  # of the fixed thresholds

    @property
    def verdict_right(self) -> bool:
        """As the label says; a flow pathology that the label also allows by another kind is right too."""
        return self.verdict == self.case.verdict or (
            self.case.verdict != "healthy" and self.kind in self.case.kinds
        )

    @property
    def kind_right(self) -> bool:
        """Whether the finding that stands first is of a kind that the label allows."""
        return self.kind in self.case.kinds

    @property
    def cause_right(self) -> bool:
        """Whether its cause is as well."""
        return self.kind_right and self.cause in self.case.causes

    @property
    def layer_right(self) -> bool | None:
        """Whether it is one that the label lists, or stands within one; None = not judged."""
        if not [name for name in self.case.first_layers if name]:
            return None
        within = [name for name in self.case.first_layers if name and self.layer.startswith(f"{name}.")]
        return self.layer in self.case.first_layers or bool(within)


def kept(case: Case, seed: int, torchmortem: str | None, folder: Path | None) -> Seen:
    """As `watch`; what was said before, where it is kept in a folder."""
    if folder is None:
        return watch(case, seed, torchmortem)
    file = folder / f"{case.family}-{case.name}-{seed}.json"
    if file.exists():
        return Seen(case=case, seed=seed, **json.loads(file.read_text()))
    seen = watch(case, seed, torchmortem)
    said = {f.name: getattr(seen, f.name) for f in fields(seen) if f.name not in ("case", "seed")}
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(said))
    return seen


def watch(case: Case, seed: int, torchmortem: str | None = None) -> Seen:
    """Run a case as a stranger would, and read what is said. `torchmortem`: the python to ask that by."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said.json"
        done = subprocess.run(
            [sys.executable, "-m", "unvanish", "run", "--quiet", "--seed", str(seed), "--out", folder,
             "--json", str(said), str(case.script)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=TIMEOUT,
        )  # fmt: skip
        if not said.exists():
            return Seen(case=case, seed=seed, verdict="none", reason=done.stderr[-300:])
        told = json.loads(said.read_text())
        run = session.load(told["run"])
        seen = _judge(case, seed, told, run)
        return replace(seen, alarms={**seen.alarms, **_torchmortem(case, seed, Path(folder), torchmortem)})


def _torchmortem(case: Case, seed: int, folder: Path, python: str | None) -> dict[str, bool]:
    """Its alarms: a finding that is critical, and one that is a warning at least."""
    if python is None:
        return {}
    said = folder / "mortem.json"
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [python, str(Path(__file__).parent / "mortem.py"), str(case.script), str(seed), str(said)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False, timeout=TIMEOUT,
        )  # fmt: skip
    levels = {severity for severity, _ in json.loads(said.read_text())} if said.exists() else set()
    return {MORTEM[0]: "CRITICAL" in levels, MORTEM[1]: bool(levels & {"CRITICAL", "WARNING"})}


def _judge(case: Case, seed: int, told: dict[str, Any], run: Run) -> Seen:
    order = ("sick", "not_learning", "inconclusive", "healthy")
    if not told["models"]:
        return Seen(case=case, seed=seed, verdict=told["verdict"], reason=str(told.get("skipped")))
    model = min(told["models"], key=lambda m: order.index(m["verdict"]))
    alarms = {name: any(rule(m) for m in run.models) for name, rule in THRESHOLDS.items()}
    first = model["findings"][0] if model["findings"] else None
    if first is None:
        return Seen(case=case, seed=seed, verdict=told["verdict"], reason=model["reason"], alarms=alarms)
    return Seen(
        case=case,
        seed=seed,
        verdict=told["verdict"],
        kind=first["kind"],
        cause=first["cause"],
        layer=first["layers"][0] if first["layers"] else "",
        confidence=first["confidence"],
        severity=first["severity"],
        detected=_detected(case, told["run"]) if first["kind"] in case.kinds else None,
        reason=model["reason"],
        alarms=alarms,
    )


def _detected(case: Case, path: str) -> int | None:
    """The number of steps after which a right kind is found, and in every longer window too."""
    since: int | None = None
    for steps in reversed(WINDOWS):
        said = session.diagnose(read_run(path, steps=(0, steps - 1)))
        if not any(f.kind in case.kinds for m in said.models for f in m.findings[:1]):
            break
        since = steps
    return since


# --- figures ----------------------------------------------------------------------------------------------------


def share(values: Sequence[bool]) -> str:
    """'17 of 20 (85 %)'."""
    return f"{sum(values)} of {len(values)} ({sum(values) / len(values):.0%})" if values else "-"


def figures(seen: Sequence[Seen]) -> list[tuple[str, str]]:
    """What the issue asks of the diagnosis, over these runs."""
    ill = [s for s in seen if s.case.verdict == "sick"]
    other = [s for s in seen if s.case.verdict == "not_learning"]
    well = [s for s in seen if s.case.verdict == "healthy"]
    said_sick = [s for s in seen if s.verdict == "sick"]
    layered = [s for s in ill if s.layer_right is not None]
    steps = [s.detected - s.case.onset for s in ill if s.detected is not None]
    by_case: dict[str, set[str]] = {}
    for s in seen:
        by_case.setdefault(f"{s.case.family}/{s.case.name}", set()).add(s.verdict)
    return [
        (RECALL, share([s.verdict == "sick" for s in ill])),
        (
            PRECISION,
            share([s.case.verdict == "sick" or s.kind in s.case.kinds for s in said_sick]),
        ),
        ("kind right, sick cases", share([s.kind_right for s in ill])),
        (CAUSE, share([s.cause_right for s in ill])),
        (LAYER, share([bool(s.layer_right) for s in layered])),
        ("other faults named by their kind", share([s.kind_right for s in other])),
        ("healthy cases called healthy", share([s.verdict == "healthy" for s in well])),
        (ALARMS, share([s.severity == "critical" for s in well])),
        ("verdict the same on every seed", share([len(v) == 1 for v in by_case.values()])),
        ("steps from onset to detection, median", f"{statistics.median(steps):.0f}" if steps else "-"),
        ("found within 20 steps of the onset", share([n <= 20 for n in steps]) if steps else "-"),
    ]


def beside(seen: Sequence[Seen]) -> list[list[str]]:
    """Sick or not: recall, precision, F1 and false alarms of ours and of the fixed thresholds."""
    said: dict[str, Callable[[Seen], bool]] = {"**unvanish**": lambda s: s.verdict == "sick"}
    for name in dict.fromkeys(name for s in seen for name in s.alarms):
        said[name] = lambda s, name=name: s.alarms.get(name, False)  # type: ignore[misc]
    rows = [["", "recall", "precision", "F1", "false alarms on healthy cases"]]
    for name, alarm in said.items():
        asked = [s for s in seen if name not in MORTEM or name in s.alarms]
        hits = sum(alarm(s) for s in asked if s.case.verdict == "sick")
        ill = sum(s.case.verdict == "sick" for s in asked)
        called = sum(alarm(s) for s in asked)
        well = [alarm(s) for s in asked if s.case.verdict == "healthy"]
        recall, precision = hits / max(1, ill), hits / called if called else math.nan
        f1 = 2 * recall * precision / (recall + precision) if hits else 0.0
        rows.append([name, f"{recall:.2f}", f"{precision:.2f}", f"{f1:.2f}", share(well)])
    return rows


def reliability(seen: Sequence[Seen]) -> list[list[str]]:
    """Of the findings given with so much confidence, how many were right in kind and cause."""
    rows = [["confidence", "findings", "mean confidence", "kind right", "kind and cause right"]]
    for low, high in BINS:
        some = [s for s in seen if s.kind and low <= s.confidence < high]
        if some:
            mean = statistics.fmean(s.confidence for s in some)
            kinds, causes = ([getattr(s, what) for s in some] for what in ("kind_right", "cause_right"))
            rows.append(
                [
                    f"{low:.2f} to {min(high, 1):.2f}",
                    str(len(some)),
                    f"{mean:.2f}",
                    share(kinds),
                    share(causes),
                ]
            )
    return rows


def case_rows(seen: Sequence[Seen]) -> list[list[str]]:
    """A line for each case."""
    rows = [["case", "part", "what it is", "label", "said, by seed"]]
    cases: dict[str, list[Seen]] = {}
    for s in seen:
        cases.setdefault(f"{s.case.family}/{s.case.name}", []).append(s)
    for some in cases.values():
        case = some[0].case
        label = (
            case.verdict
            if case.verdict == "healthy"
            else f"{case.verdict}: {case.kinds[0]}, {case.causes[0]}"
        )
        said = [f"{s.verdict}{f': {s.kind}, {s.cause}' if s.kind else ''}" for s in some]
        rows.append([f"`{case.name}`", case.part, case.what, label, "; ".join(dict.fromkeys(said))])
    return rows


def page(seen: Sequence[Seen]) -> str:
    """docs/clinic.md."""
    report = [s for s in seen if s.case.part == "report"]
    tune = [s for s in seen if s.case.part == "tune"]
    date = datetime.now(timezone.utc).date().isoformat()
    machine = f"{os.cpu_count()} cores ({platform.machine()}, {platform.system()})"
    seeds = len({s.seed for s in report})
    both = [
        ["", "reported", "tuned"],
        *([n, a, b] for (n, a), (_, b) in zip(figures(report), figures(tune), strict=True)),
    ]
    count = {
        v: len({s.case.name for s in seen if s.case.verdict == v})
        for v in ("sick", "not_learning", "healthy")
    }
    how = (
        f"Measured on {date} by `python benchmarks/clinic/run.py --write docs/clinic.md`, on {machine}, torch "
        f"{torch.__version__.partition('+')[0]}, unvanish {unvanish.__version__}; {seeds} seeds a case "
        f"of those that are reported, {len({s.seed for s in tune})} of the others."
    )
    what = (
        f"{sum(count.values())} ordinary training scripts in benchmarks/clinic: {count['sick']} sick, "
        f"{count['not_learning']} that fail for another reason, {count['healthy']} healthy. Each label was proved by "
        "training alone, on three seeds (`prove.py`): what is not healthy fails to learn as it is and learns when "
        f"cured; what is healthy learns. The rules were tuned on {len({s.case.name for s in tune})} of them. The other "
        f"{len({s.case.name for s in report})} were written by others, from their own knowledge of how nets fail, without "
        "sight of the rules, and nobody who writes rules had read them when this was measured."
    )
    parts = ["# The clinic", how, what, table(both)]
    parts += ["## Beside fixed thresholds, on the reported cases", table(beside(report))]
    parts += ["## Confidence, on the reported cases", table(reliability(report))]
    parts += ["## Cases", table(case_rows(seen))]
    return "\n\n".join(parts) + "\n"


def headline(seen: Sequence[Seen]) -> str:
    """What README says of it: the reported cases, in a paragraph."""
    report = [s for s in seen if s.case.part == "report"]
    said = dict(figures(report))
    ours, *others = beside(report)[1:]
    rivals = "; ".join(f"{name} {f1}" for name, _, _, f1, _ in others)
    date = datetime.now(timezone.utc).date().isoformat()
    cases, seeds = len({s.case.name for s in report}), len({s.seed for s in report})
    return (
        f"On the part of [the clinic](docs/clinic.md) that nothing had been tuned on ({cases} scripts, their labels "
        f"proved by training itself, {seeds} seeds each, {date}): "
        f"sick nets called sick {said[RECALL]}, called sick and sick {said[PRECISION]}, "
        f"the cause right {said[CAUSE]}, a right layer first {said[LAYER]}, "
        f"critical findings on healthy nets {said[ALARMS]}. "
        f"F1 {ours[3]}, beside fixed thresholds and torchmortem on the same runs: {rivals}."
    )


def into_readme(text: str) -> None:
    """Put the paragraph between its marks."""
    begin, end = "<!-- clinic: begin (written by benchmarks/clinic/run.py) -->", "<!-- clinic: end -->"
    readme = README.read_text(encoding="utf-8")
    head, _, rest = readme.partition(begin)
    _, _, tail = rest.partition(end)
    README.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--part", choices=("tune", "report"))
    parser.add_argument("--family")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune-seeds", type=int, help="the same for what is not reported")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--torchmortem", metavar="PYTHON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was said, and go on from what is there")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    chosen = [
        c for c in all_cases()
        if (not options.names or c.name in options.names) and options.part in (None, c.part)
        and options.family in (None, c.family)
    ]  # fmt: skip
    count = {"report": options.seeds, "tune": options.tune_seeds or options.seeds}
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(
                kept, case, seed, None if seed or case.part == "tune" else options.torchmortem, options.keep
            )
            for case in chosen
            for seed in range(count[case.part])
        ]
        seen = []
        for job in jobs:
            s = job.result()
            seen.append(s)
            if s.case.part == "report" and not options.names:
                continue  # what is said of these is for the figures alone: nothing is tuned on it
            right = (
                s.verdict_right
                and (s.case.verdict == "healthy" or s.cause_right)
                and s.layer_right is not False
            )
            label = "/".join(
                (s.case.verdict, *map("|".join, (s.case.kinds, s.case.causes, s.case.first_layers)))
            )
            print(f"{'  ' if right else '**'} {s.case.name} [{s.seed}] {label}", flush=True)
            if not right:
                said = f"{s.verdict}/{s.kind}/{s.cause}/{s.layer}"
                print(f"     said {said} {s.confidence} detected {s.detected}\n     {s.reason}")
    for name, value in figures(seen):
        print(f"{name:45s} {value}")
    print(table(beside(seen)))
    print(table(reliability(seen)))
    if options.write:
        options.write.write_text(page(seen), encoding="utf-8")
        into_readme(headline(seen))


if __name__ == "__main__":
    main()
