"""Does `unvanish treat` cure? On the clinic's sick cases, beside random search and AutoTrainer's fixed order.

    python benchmarks/cures.py [NAME ...] [--part tune|report] [--family A,B] [--rivals] [--trust-labels]
        [--jobs 1] [--keep DIR] [--write docs/cures.md]

A cure counts where the treated script, run in full on three seeds that the search has not seen, learns on all of
them by the clinic's own threshold. The rivals get the same treatments; random search gets the optimizer steps that
`treat` spent on the case, AutoTrainer's order (Zhang et al. 2021, ICSE) as many full trainings as it asks for.
Healthy cases must be left alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tables import table

sys.path.insert(0, str(Path(__file__).resolve().parent / "clinic"))
from labels import Case, all_cases

from unvanish import session
from unvanish.remedy.planning import mark_for
from unvanish.schema.run import ModelRun
from unvanish.treatment.candidate import Candidate, candidate, of
from unvanish.treatment.catalogue import flow_candidates, rate
from unvanish.treatment.planner import candidates_for
from unvanish.treatment.recipe import Recipe, save_recipe
from unvanish.verify.compare import learnt
from unvanish.verify.engines.local import LocalEngine
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

FRESH_SEEDS = (101, 102, 103)
RUNNER = "unvanish.launch.trial:run_isolated_trial"
RATES = (0.1, 0.3, 1.0, 3.0, 10.0)
WHOLE = 10**6  # steps: the script ends by itself
TIMEOUT = 900  # seconds
FINAL = re.compile(r"^final loss: (\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Cure:
    """What came of one case by one way. `finals`: losses of full trainings on the fresh seeds (None: not finite)."""

    case: Case
    way: str
    chosen: str
    finals: tuple[float | None, ...]
    untreated: tuple[float | None, ...]
    steps: int  # spent by the search
    whole: int  # steps of one full training
    seconds: float
    whole_seconds: float

    @property
    def cured(self) -> bool:
        """Learns on every fresh seed."""
        return bool(self.finals) and all(v is not None and v < self.case.learned_below for v in self.finals)

    @property
    def worse(self) -> bool:
        """Ends clearly above the untreated script on any fresh seed."""
        pairs = [(t, u) for t, u in zip(self.finals, self.untreated, strict=False) if u is not None]
        return any(t is None or t > u + 0.05 * abs(u) for t, u in pairs)


def env() -> dict[str, str]:
    """One thread: the cases are small."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def final_losses(case: Case, recipe: Path | None, folder: Path) -> tuple[tuple[float | None, ...], float]:
    """(the final losses on the fresh seeds, seconds of one training)."""
    finals, seconds = [], []
    for seed in FRESH_SEEDS:
        began = time.perf_counter()
        way = [] if recipe is None else ["--recipe", str(recipe)]
        done = subprocess.run(
            [sys.executable, "-m", "unvanish", "run", "--quiet", "--seed", str(seed), "--out", str(folder), *way,
             str(case.script)],
            env=env(), capture_output=True, text=True, check=False, timeout=TIMEOUT,
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
        found = FINAL.search(done.stdout)
        value = math.nan if found is None else float(found[1])
        finals.append(value if math.isfinite(value) else None)
    return tuple(finals), statistics.median(seconds)


def by_unvanish(case: Case, folder: Path, *, trust: bool) -> tuple[Cure, dict[str, Any], ModelRun]:
    """`unvanish treat`, as a stranger calls it."""
    said = folder / "treatment.json"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "unvanish", "treat", "--quiet", "--seed", "0", "--json", str(said),
         "--out", str(folder / "runs"), str(case.script)],
        env=env(), capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if not said.exists():
        raise RuntimeError(done.stderr[-300:])
    told = json.loads(said.read_text())
    untreated, whole_seconds = ((), math.nan) if trust else final_losses(case, None, folder / "fresh")
    recipe = None if told["recipe"] is None else Path(told["recipe"])
    finals, treated_seconds = (
        ((), seconds) if recipe is None else final_losses(case, recipe, folder / "fresh")
    )
    run = session.load(next((folder / "runs").iterdir()))
    record = max(run.models, key=lambda m: sum(p.numel for p in m.info.parameters))
    cure = Cure(
        case=case, way="unvanish", chosen=told["chosen"] or "-", finals=finals, untreated=untreated,
        steps=told["steps"], whole=max(1, len(record.losses)), seconds=seconds,
        whole_seconds=treated_seconds if trust else whole_seconds,
    )  # fmt: skip
    return cure, told, record


# --- rivals -------------------------------------------------------------------------------------------------


def choices(record: ModelRun) -> tuple[Candidate, ...]:
    """All treatments that ours may choose from, for this net."""
    flow = flow_candidates(record.architecture)
    return tuple(c for c in candidates_for(None, flow) if c.safety == "safe") + tuple(
        c for c in flow if c.safety == "safe" and c not in candidates_for(None, flow)
    )


def fixed_order() -> tuple[Candidate, ...]:
    """AutoTrainer's order for a net that does not learn."""
    selu, relu, he = of("activation", kind="selu"), of("activation", kind="relu"), of("init", scheme="he")
    return (
        candidate("selu", "SELU with LeCun init", selu, of("init", scheme="lecun")),
        candidate("relu_he", "ReLU with He init", relu, he),
        candidate("batchnorm", "batch norm", of("batchnorm")),
        candidate("clip", "clipping", of("clip", norm=1.0)),
        rate(0.1),
        rate(10.0),
    )


def full_training(
    engine: LocalEngine, case: Case, one: Candidate, factor: float, record: ModelRun
) -> TrialOutcome:
    """One candidate, trained to the script's own end."""
    spec = TrialSpec(
        candidate=one.name,
        prescriptions=one.prescriptions,
        target=Target(program=str(case.script), directory=str(Path.cwd())),
        seed=0,
        learning_rate_factor=factor,
        steps=WHOLE,
        seconds=300.0,
        mark=mark_for(record.info),
        model=record.info.name,
        by_hand=record.info.by_hand,
        loose=record.info.without_module,
    )
    return next(iter(engine.run([spec])))


def rival(way: str, case: Case, ours: Cure, record: ModelRun, folder: Path) -> Cure:
    """Random search with our steps, or the fixed order."""
    began, spent = time.perf_counter(), 0
    best: tuple[float, Candidate, float] | None = None
    with LocalEngine(1, RUNNER) as engine:
        for one, factor in _proposals(way, case, record):
            if way == "random" and spent >= ours.steps:
                break
            outcome = full_training(engine, case, one, factor, record)
            spent += len(outcome.losses)
            if outcome.error is None and outcome.losses and not outcome.diverged:
                if best is None or outcome.last < best[0]:
                    best = (outcome.last, one, factor)
                if way == "fixed order" and learnt(outcome, outcome.chance):
                    break
    seconds = time.perf_counter() - began
    recipe = None if best is None else _recipe(best[1], best[2], record, folder)
    finals = final_losses(case, recipe, folder / "fresh")[0] if recipe is not None else ()
    return Cure(
        case=case, way=way, chosen="-" if best is None else best[1].name, finals=finals, untreated=ours.untreated,
        steps=spent, whole=ours.whole, seconds=seconds, whole_seconds=ours.whole_seconds,
    )  # fmt: skip


def _proposals(way: str, case: Case, record: ModelRun) -> Iterator[tuple[Candidate, float]]:
    if way == "fixed order":
        yield from ((c, 1.0) for c in fixed_order())
        return
    dice, some = random.Random(case.name), choices(record)
    while True:
        yield dice.choice(some), dice.choice(RATES)


def _recipe(one: Candidate, factor: float, record: ModelRun, folder: Path) -> Path:
    prescriptions = (
        one.prescriptions if factor == 1.0 else (of("learning_rate", factor=factor), *one.prescriptions)
    )
    recipe = Recipe(
        model_class=record.info.class_name,
        fingerprint=mark_for(record.info),
        by_hand=record.info.by_hand,
        parameters=sum(p.numel for p in record.info.parameters),
        prescriptions=prescriptions,
    )
    return save_recipe(recipe, folder / f"{one.name}.json")


# --- figures ------------------------------------------------------------------------------------------------


def treat_case(case: Case, rivals: bool, keep: Path | None, *, trust: bool = False) -> list[Cure]:
    """All ways on one case, or what is kept of them."""
    kept = None if keep is None else keep / f"{case.name}.json"
    if kept is not None and kept.exists():
        told = json.loads(kept.read_text())
        return [Cure(**{**one, "case": case, **_tuples(one)}) for one in told]
    cures = _treated(case, rivals, trust=trust)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([{**vars(c), "case": c.case.name} for c in cures]))
    return cures


def _tuples(one: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(one[key]) for key in ("finals", "untreated")}


def _failed(case: Case) -> Cure:
    """A treatment that came to nothing: not cured, at the cost of nothing that is known."""
    return Cure(
        case=case, way="unvanish", chosen="failed", finals=(), untreated=(), steps=0, whole=1, seconds=0.0,
        whole_seconds=1.0,
    )  # fmt: skip


def _treated(case: Case, rivals: bool, *, trust: bool) -> list[Cure]:
    """All ways on one case; what went wrong is told, and the case counts as not cured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            ours, told, record = by_unvanish(case, folder, trust=trust)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"** {case.name}: {error}", flush=True)
            return [_failed(case)]
        line = f"{'  ' if ours.cured or case.verdict == 'healthy' else '**'} {case.name}: {ours.chosen}"
        print(f"{line}  {ours.finals} against {ours.untreated}, {ours.steps} of {ours.whole} steps, "
              f"{ours.seconds:.0f} of {ours.whole_seconds:.0f} s", flush=True)  # fmt: skip
        if not ours.cured and case.verdict != "healthy":
            for trial in told["trials"]:
                print(f"      {trial['name']}: {trial['outcome']}, {trial['why'][:150]}")
        if not rivals or case.verdict == "healthy":
            return [ours]
        return [ours, *(rival(way, case, ours, record, folder) for way in ("random", "fixed order"))]


def summary(cures: Sequence[Cure]) -> list[list[str]]:
    """A row for each way."""
    rows = [
        ["", "cured", "worse than untreated", "steps spent, of one training", "wall time, of one training"]
    ]
    for way in dict.fromkeys(c.way for c in cures):
        some = [c for c in cures if c.way == way and c.case.verdict != "healthy"]
        if not some:
            continue
        cured = sum(c.cured for c in some)
        rows.append([
            f"**{way}**" if way == "unvanish" else way,
            f"{cured} of {len(some)} ({cured / len(some):.0%})",
            str(sum(c.worse for c in some)),
            f"{statistics.median(c.steps / c.whole for c in some):.1f} (median)",
            f"{statistics.median(c.seconds / c.whole_seconds for c in some):.1f} (median)",
        ])  # fmt: skip
    return rows


def _words() -> list[str]:
    """The command line, without the folder of the results."""
    words = sys.argv[1:]
    place = words.index("--keep") if "--keep" in words else len(words)
    return [*words[:place], *words[place + 2 :]]


def page(cures: Sequence[Cure]) -> str:
    """docs/cures.md."""
    date = datetime.now(timezone.utc).date().isoformat()
    well = [c for c in cures if c.case.verdict == "healthy"]
    rows = [["case", "what is wrong", "chosen", "untreated", "treated", "steps / one training"]]
    for c in cures:
        if c.way == "unvanish" and c.case.verdict != "healthy":
            treated = ", ".join("-" if v is None else f"{v:.3g}" for v in c.finals) or "-"
            plain = ", ".join("not finite" if v is None else f"{v:.3g}" for v in c.untreated)
            wrong = f"{c.case.kinds[0]}, {c.case.causes[0]}"
            rows.append([f"`{c.case.name}`", wrong, c.chosen, plain, treated, f"{c.steps / c.whole:.1f}"])
    how = (
        f"Measured on {date} by `python benchmarks/cures.py {' '.join(_words())}`, on {os.cpu_count()} "
        f"cores. Cured: the treated script, run in full, learns on all of {len(FRESH_SEEDS)} seeds that the search "
        "has not seen, by the clinic's own threshold. Random search draws from the same treatments and rates, trains "
        "each in full, and has the optimizer steps that `unvanish treat` spent; the fixed order is AutoTrainer's "
        "(Zhang et al. 2021)."
    )
    alone = f"Healthy cases left alone: {sum(c.chosen == '-' for c in well)} of {len(well)}." if well else ""
    return "\n\n".join(["# Cures", how, table(summary(cures)), alone, table(rows)]) + "\n"


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--part", choices=("tune", "report"))
    parser.add_argument(
        "--verdict", default="sick", help="sick, not_learning, healthy, or several with commas"
    )
    parser.add_argument("--family", help="only these families of the clinic, with commas")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument(
        "--trust-labels",
        action="store_true",
        help="don't run the untreated script in full: prove.py has done that",
    )
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time; each uses all cores already")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep each case's result, and go on from there"
    )
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    chosen = [
        c for c in all_cases()
        if (c.name in options.names if options.names else c.verdict in options.verdict.split(","))
        and options.part in (None, c.part)
        and (options.family is None or c.family in options.family.split(","))
    ]  # fmt: skip

    def one(case: Case) -> list[Cure]:
        return treat_case(case, options.rivals, options.keep, trust=options.trust_labels)

    with ThreadPoolExecutor(options.jobs) as pool:
        cures = [c for some in pool.map(one, chosen) for c in some]
    print(table(summary(cures)))
    if options.write:
        options.write.write_text(page(cures), encoding="utf-8")


if __name__ == "__main__":
    main()
