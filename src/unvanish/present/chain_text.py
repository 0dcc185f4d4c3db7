"""`unvanish explain` for the terminal: the table of factors, who is to blame, what to change, where the way forks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console

from unvanish.present import words
from unvanish.present.blame import blame_sentence, cancels, mend_sentence
from unvanish.present.paths_text import print_paths
from unvanish.present.series import spread
from unvanish.present.text import NAME, Page
from unvanish.present.waterfall import TRIVIAL, power
from unvanish.schema.chain import Chain, Factor, Fork, Recurrence
from unvanish.schema.explanation import Explanation
from unvanish.schema.graph import place

MOST_ROWS = 60
MOST_FORKS = 12
MOST_STEPS = 9  # time steps of a recurrence that are shown
REPEATED = 8  # factors of a recurrent layer in a row that are told as one
FACTOR_HEAD = ("Factor", "Gain", "Theory", "At most", "Decades", "So far")


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Every chain in full, then the paths to a single weight where they were asked for."""
    for number, chain in enumerate(explanation.chains):
        if number:
            console.print()
        if len(explanation.chains) > 1:
            Page(console=console).labelled("Model", chain.model, "bold")
        print_chain(chain, console)
    if explanation.scalar is not None:
        console.print()
        print_paths(explanation.scalar, console)


def print_chain(chain: Chain, console: Console) -> None:
    """One product of factors: each factor's gain, theory's, the largest there can be, its decades; blame and mend."""
    page = Page(console=console)
    source = chain.output_layer or "the output"
    page.line(
        f"From {place(source)} down to {chain.parameter}, step {chain.step}, loss {words.plain(chain.loss, 4)}",
        "bold",
    )
    page.table(FACTOR_HEAD, factor_rows(chain), numbers=(1, 2, 3, 4, 5))
    page.line(
        "Gain: the L2 norm of the signal behind a factor over that before it. Gains multiply, decades add up.",
        "dim",
    )
    page.line(words.chain_looked_at(chain), "dim")
    page.gap()
    page.labelled("Way", words.attribution_sentence(chain))
    page.labelled("Blame", blame_sentence(chain))
    page.labelled("Mend", mend_sentence(chain))
    if chain.uses > 1:
        page.labelled("Uses", _uses(chain))
    repeated = {r.layer for r in chain.recurrences}
    forks = [f for f in chain.forks if f.layer not in repeated]
    if forks:
        page.gap()
        _forks(page, forks, len(chain.forks) - len(forks))
    for recurrence in chain.recurrences:
        page.gap()
        _recurrence(page, recurrence)


def factor_rows(chain: Chain) -> list[tuple[str, ...]]:
    """The rows under FACTOR_HEAD: from the signal at the output, by every factor worth a row, to the gradient."""
    rows: list[tuple[str, ...]] = [
        (
            f"signal at the output, dL/d({chain.output_layer or 'output'})",
            words.plain(chain.output_norm, 3),
            "",
            "",
            "",
            "",
        )
    ]
    level = 0.0
    for group in _outer(_groups(chain), MOST_ROWS):
        lost = sum(f.decades for f in group)
        level += lost
        rows.append(
            (
                words.shortened(_label(group), NAME),
                words.plain(power(lost), 3),
                words.plain(_product([f.predicted for f in group]), 3),
                _at_most(group),
                words.decades(lost),
                words.decades(level),
            )
        )
    through = f"times what enters {place(chain.layer)}"
    rows.append((words.shortened(through, NAME), words.plain(chain.last_factor, 3), "", "", "", ""))
    gradient = "gradient" if chain.uses == 1 else "this use's gradient"
    rows.append(
        (
            words.shortened(f"= {gradient} of {chain.parameter}", NAME),
            words.plain(chain.gradient_norm, 3),
            "",
            "",
            "",
            "",
        )
    )
    return rows


def _groups(chain: Chain) -> list[list[Factor]]:
    """The factors worth a row; the steps of an unrolled recurrence together."""
    kept = [f for f in chain.factors if not abs(f.decades) < TRIVIAL]
    repeated = {r.layer for r in chain.recurrences if not r.fused}
    groups: list[list[Factor]] = []
    for module, run in groupby(kept, key=lambda f: f.module):
        factors = list(run)
        if module in repeated and len(factors) >= REPEATED:
            groups.append(factors)
        else:
            groups += [[f] for f in factors]
    return groups


def _outer(groups: list[list[Factor]], limit: int) -> list[list[Factor]]:
    """The first and the last; those between as one."""
    if len(groups) <= limit:
        return groups
    side = (limit - 1) // 2
    inner = [f for g in groups[side : len(groups) - side] for f in g]
    return [*groups[:side], inner, *groups[len(groups) - side :]]


def _label(group: Sequence[Factor]) -> str:
    if len(group) == 1:
        cancel = " (they cancel)" if cancels(group[0]) else ""
        return words.factor_label(group[0]) + cancel
    if len({f.module for f in group}) == 1:
        return f"{group[0].module}, back through time ({len(group)} factors)"
    return f"... {len(group)} factors between"


def _at_most(group: Sequence[Factor]) -> str:
    if len(group) > 1:
        return "-"
    factor = group[0]
    text = words.plain(factor.bound, 3)
    return text if factor.open_share is None else f"{text} ({100 * factor.open_share:.0f} % open)"


def _product(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.prod(known) if len(known) == len(values) else None


def _uses(chain: Chain) -> str:
    said = (
        f"{chain.parameter} is used {chain.uses} times; this is the way to its first use, and its whole gradient is "
        "the sum over all of them."
    )
    if chain.last_factor == 0 and chain.signal_norm > 0:
        said += " What enters the first use is zero (a first state of zeros), so that this one adds nothing."
    return said


# --- forks and time ----------------------------------------------------------------------------------------


def _forks(page: Page, forks: Sequence[Fork], left: int) -> None:
    """`left`: how many are left out already, those between time steps."""
    rows = []
    shown = sorted(spread(len(forks), MOST_FORKS))
    for number in shown:
        fork = forks[number]
        at = f"{'sum at' if fork.kind == 'sum' else 'attention in'} {fork.layer}"
        for way in fork.ways[:4]:
            rows.append(
                (
                    words.shortened(at, NAME),
                    words.shortened(way.label, NAME),
                    words.plain(way.norm, 3),
                    "-" if math.isnan(way.share) else f"{100 * way.share:.0f} %",
                    "<- followed" if way.followed else "",
                )
            )
            at = ""
        if len(fork.ways) > 4:
            rows.append(("", f"and {len(fork.ways) - 4} more", "", "", ""))
    page.table(("Where ways meet or part", "Way", "Signal", "Share", ""), rows, numbers=(2, 3))
    left += len(forks) - len(shown)
    more = f" {left} more {'is' if left == 1 else 'are'} in the JSON." if left else ""
    page.line(f"Share: of the squared norms of all ways there.{more}", "dim")


def _recurrence(page: Page, recurrence: Recurrence) -> None:
    steps = recurrence.steps
    gain = recurrence.gain_per_step
    each = "" if gain is None else f": each step back multiplies it by {words.plain(gain, 2)}"
    page.line(
        f"Back through the {len(steps)} time steps of {recurrence.layer or 'the recurrent layer'}{each}",
        "bold",
    )
    last = steps[-1].signal_norm
    rows = []
    for i in sorted(spread(len(steps), MOST_STEPS), reverse=True):
        step = steps[i]
        share = step.signal_norm / last if last > 0 else math.nan
        rows.append(
            (
                str(step.step + 1),
                words.plain(step.signal_norm, 3),
                words.plain(share, 2),
                words.plain(step.gradient_norm, 3),
            )
        )
    page.table(("Time step", "Signal", "Of the last", "Adds to the gradient"), rows, numbers=(0, 1, 2, 3))
