"""What a run that was merged from many says of them: who is missing, what is not exact, who had which incident."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from unvanish.schema.ranks import said_ranks
from unvanish.schema.run import Incident, Run, RunStatus, Skipped
from unvanish.store.merge_steps import Steps
from unvanish.store.merge_teams import Member, Team, first_difference
from unvanish.store.series import Statistics

_GRAVEST: tuple[RunStatus, ...] = ("crashed", "cut_off", "interrupted", "running", "stopped", "finished")


def inexact(team: Team, index: int, steps: Steps, statistics: Statistics) -> list[Skipped]:
    """What is not exact in a merged model, and why."""
    out: list[Skipped] = []

    def say(what: str, why: str) -> None:
        out.append(Skipped(model=index, what=what, why=why))

    last = {m.rank: m.last for m in team.members}
    early = [rank for rank, step in last.items() if step < max(last.values())]
    if early:
        first = min(last[rank] for rank in early)
        say(
            f"the last steps of {said_ranks(early)}",
            f"the record of {said_ranks(early)} ends at step {first}, that of others at step {max(last.values())}; "
            "from there on the numbers are those of the others",
        )
    if statistics.estimated:
        say(
            "pieces of sharded parameters",
            f"some pieces are in no rank's record at {len(statistics.estimated)} steps, the first is step "
            f"{statistics.estimated[0]}; the other pieces stand for the whole there",
        )
    if steps.filled:
        say(
            "the loss of every rank at every old step",
            f"ranks thin old steps each by itself; {steps.filled} losses are read between two others",
        )
    if team.streams == 1 and team.declared and len(team.members) > 1:
        say(
            "the backprop signal on all ranks",
            "the ranks share samples (tensor parallel); what is shown was measured on the lowest rank alone",
        )
    if not team.declared and team.streams > 1:
        say(
            "how the ranks' gradients are put together",
            f"{said_ranks(team.ranks)} keep equal copies of this model by other means than DDP or FSDP; "
            "the signal is shown as if the loss were the mean of theirs",
        )
    return out


def drifted_copies(team: Team) -> list[Incident]:
    """Copies that torch keeps, and that are not equal any more."""
    if not team.declared:
        return []
    out = []
    leads: dict[tuple[int, ...], Member] = {}
    for member in team.members:
        parts = tuple(member.shard(p).part for p in range(len(member.model.info.parameters)))
        lead = leads.setdefault(parts, member)
        step = first_difference(lead, member) if lead is not member else None
        if step is not None:
            what = (
                f"its copy of {team.lead.info.name} differs from that of rank {lead.rank} from step {step} on"
            )
            out.append(Incident(step=step, where="ranks", what=f"rank {member.rank}: {what}"))
    return out


def missing_ranks(ranked: Sequence[tuple[int, Run]]) -> list[Skipped]:
    """Ranks of which there is no record."""
    ranks = max(run.info.ranks for _, run in ranked)
    gone = sorted(set(range(ranks)) - {rank for rank, _ in ranked})
    if not gone:
        return []
    why = f"{len(ranked)} of {ranks} ranks left a record; the numbers are those of {said_ranks(r for r, _ in ranked)}"
    return [Skipped(model=None, what=said_ranks(gone), why=why)]


def all_incidents(ranked: Sequence[tuple[int, Run]]) -> list[Incident]:
    """All of them, each with the ranks that it happened on."""
    found: dict[Incident, list[int]] = {}
    for rank, run in ranked:
        for incident in run.incidents:
            found.setdefault(incident, []).append(rank)
    return [
        replace(incident, what=f"{said_ranks(ranks)}: {incident.what}")
        for incident, ranks in sorted(found.items(), key=lambda item: (item[0].step, item[1], item[0].where))
    ]


def all_skipped(ranked: Sequence[tuple[int, Run]], places: dict[tuple[int, int], int]) -> list[Skipped]:
    """All of them, with their ranks where these are not all that there are of the model."""
    found: dict[Skipped, list[int]] = {}
    for rank, run in ranked:
        for one in run.skipped:
            index = None if one.model is None else places.get((rank, one.model))
            found.setdefault(replace(one, model=index), []).append(rank)
    out = []
    for one, ranks in found.items():
        of_model = [rank for (rank, _), index in places.items() if index == one.model]
        all_of_it = set(ranks) == set(of_model if one.model is not None else [r for r, _ in ranked])
        out.append(one if all_of_it else replace(one, why=f"{one.why} ({said_ranks(ranks)})"))
    return out


def ending(ranked: Sequence[tuple[int, Run]]) -> tuple[RunStatus, str | None]:
    """The gravest end of all, and what the ranks that ended so had to say."""
    gravest = min((run.status for _, run in ranked), key=_GRAVEST.index)
    said: dict[str, list[int]] = {}
    for rank, run in ranked:
        if run.status == gravest and run.message:
            said.setdefault(run.message, []).append(rank)
    if not said:
        return gravest, next((run.message for _, run in ranked if run.message), None)
    return gravest, "\n".join(_by_ranks(said, len(ranked)))


def _by_ranks(said: dict[str, list[int]], all_ranks: int) -> Iterable[str]:
    for message, ranks in said.items():
        yield message if len(ranks) == all_ranks else f"{said_ranks(ranks)}: {message}"
