"""What the ranks of one training recorded, each by itself, as one run: at read time, and without torch.

Nothing is exchanged while it trains. What can be merged exactly is: counts, sums, sums of squares, largest values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unvanish.errors import UsageError
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import Trace
from unvanish.schema.run import (
    ModelInfo,
    ModelRun,
    ParameterInfo,
    Run,
    Skipped,
    Snapshot,
)
from unvanish.store.merge_snapshots import merged_snapshots
from unvanish.store.merge_stages import chains, joined
from unvanish.store.merge_statistics import merged_statistics
from unvanish.store.merge_steps import merged_steps
from unvanish.store.merge_teams import Member, Team, teams_of, unique_names
from unvanish.store.merge_traces import merged_traces, same_graph
from unvanish.store.merge_words import (
    all_incidents,
    all_skipped,
    drifted_copies,
    ending,
    inexact,
    missing_ranks,
)


def merge_ranks(runs: Sequence[Run]) -> Run:
    """The runs of all ranks of one training as one; their order does not matter.

    A model that several ranks train together (DDP, FSDP2, HSDP, tensor parallel, or copies that are kept equal by
    hand) becomes one model: sharded parameters whole, copies counted once, losses the mean over the ranks, the
    backprop signal that of the mean loss. Models that only one rank has (pipeline stages) stay, with the rank in
    their name where names are the same; where the gradient that one hands back is seen to be the one that another
    gets, they become one model, too. Raises UsageError for no runs.
    """
    if not runs:
        raise UsageError("received no runs to merge", "give the runs of all ranks")
    ranked, notes = _ranked(runs)
    if len(ranked) == 1 and ranked[0][1].info.ranks == 1:
        return ranked[0][1]
    teams = teams_of(Member(rank, model) for rank, run in ranked for model in run.models)
    incidents = all_incidents(ranked)
    models, whole = [], {}
    for index, team in enumerate(teams):
        model, said = _merged_model(team, index)
        models.append(model)
        notes += said
        incidents += drifted_copies(team)
        whole.update({(m.rank, m.model.info.index): index for m in team.members})
    notes = [*all_skipped(ranked, whole), *missing_ranks(ranked), *notes]
    made, places = _pipelines(models, [team.ranks for team in teams])
    notes = [n if n.model is None else replace(n, model=places[n.model]) for n in notes]
    lead = ranked[0][1]
    status, message = ending(ranked)
    return replace(
        lead,
        info=replace(lead.info, rank=None, ranks=max(lead.info.ranks, len(ranked))),
        status=status,
        ended=max((r.ended for _, r in ranked if r.ended), default=None),
        message=message,
        models=tuple(made),
        incidents=tuple(incidents),
        skipped=tuple(dict.fromkeys(notes)),
        events_dropped=sum(run.events_dropped for _, run in ranked),
    )


def _ranked(runs: Sequence[Run]) -> tuple[list[tuple[int, Run]], list[Skipped]]:
    """By rank; processes that are no rank of several come last, numbered on in the order in which they began."""
    of_rank: dict[int, list[Run]] = {}
    alone: list[Run] = []
    for run in sorted(runs, key=lambda r: (r.info.created, r.info.pid, r.info.id)):
        if run.info.rank is None or run.info.ranks == 1:
            alone.append(run)
        else:
            of_rank.setdefault(run.info.rank, []).append(run)
    first = max((run.info.ranks for same in of_rank.values() for run in same), default=0)
    ranked = [(rank, same[-1]) for rank, same in sorted(of_rank.items())]
    said = [
        Skipped(
            model=None,
            what=f"earlier records of rank {rank}",
            why=f"it left {len(same)}; the one that began last is shown",
        )
        for rank, same in sorted(of_rank.items())
        if len(same) > 1
    ]
    return [*ranked, *enumerate(alone, start=first)], said


def _pipelines(
    models: Sequence[ModelRun], ranks: Sequence[tuple[int, ...]]
) -> tuple[list[ModelRun], dict[int, int]]:
    """The models with stages joined, each with a name of its own; and the new place of each by its old one."""
    stages = {chain.places[0]: chain for chain in chains(models)}
    later = {place for chain in stages.values() for place in chain.places[1:]}
    out: list[ModelRun] = []
    holders: list[tuple[int, ...]] = []
    places: dict[int, int] = {}
    for index, model in enumerate(models):
        if index in later:
            continue
        chain = stages.get(index)
        members = (index,) if chain is None else chain.places
        places.update(dict.fromkeys(members, len(out)))
        out.append(model if chain is None else joined([models[i] for i in members], chain.entries))
        holders.append(tuple(rank for i in members for rank in ranks[i]))
    names = unique_names([m.info.name for m in out], holders)
    named = [replace(m, info=replace(m.info, name=name)) for m, name in zip(out, names, strict=True)]
    return [renumbered(m, index) for index, m in enumerate(named)], places


# --- one model ---------------------------------------------------------------------------------------------


def _merged_model(team: Team, index: int) -> tuple[ModelRun, list[Skipped]]:
    if len(team.members) == 1 and not team.declared:
        return renumbered(team.lead, index), []
    steps, statistics = merged_steps(team), merged_statistics(team)
    whole = ModelRun(
        info=_info(team),
        steps=steps.steps,
        seconds=steps.seconds,
        losses=steps.losses,
        parameter_steps=statistics.steps,
        parameter_stats=statistics.means,
        snapshots=merged_snapshots(team),
        graphs=same_graph(team),
        traces=(),
        architecture=_layers(team),
        unseen_losses=steps.unseen,
        clips=steps.clips,
        learning_rates=steps.learning_rates,
        parameter_until=statistics.until,
        parameter_extremes=statistics.extremes,
    )
    whole = replace(whole, traces=merged_traces(team, whole))
    return renumbered(whole, index), inexact(team, index, steps, statistics)


def _info(team: Team) -> ModelInfo:
    """The model as if one process held all of it."""
    parameters = tuple(replace(p, sampled=_sampled(team, p), shard=None) for p in team.lead.info.parameters)
    return replace(team.lead.info, parameters=parameters)


def _sampled(team: Team, parameter: ParameterInfo) -> int:
    """Elements that are looked at in all pieces together."""
    pieces: dict[int, int] = {}
    for member in team.members:
        own = member.model.info.parameters[parameter.index]
        pieces.setdefault(member.shard(parameter.index).part, own.sampled)
    return sum(pieces.values())


def _layers(team: Team) -> tuple[LayerSpec, ...]:
    """As the lowest rank describes them; what enters a layer is that of all ranks' samples."""
    described = [m.model.architecture for m in team.members if m.model.architecture]
    if not described or team.streams == 1 or any(len(d) != len(described[0]) for d in described):
        return described[0] if described else ()
    return tuple(_layer(same) for same in zip(*described, strict=True))


def _layer(same: Sequence[LayerSpec]) -> LayerSpec:
    return replace(
        same[0],
        input_second_moment=_mean([s.input_second_moment for s in same]),
        input_variety=_mean([s.input_variety for s in same]),
        input_disparity=_mean([s.input_disparity for s in same]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def renumbered(model: ModelRun, index: int) -> ModelRun:
    """The same under another index."""
    if model.info.index == index and all(t.model == index for t in model.traces):
        return model
    traces: tuple[Trace, ...] = tuple(replace(t, model=index) for t in model.traces)
    snapshots: tuple[Snapshot, ...] = tuple(replace(s, model=index) for s in model.snapshots)
    return replace(model, info=replace(model.info, index=index), traces=traces, snapshots=snapshots)
