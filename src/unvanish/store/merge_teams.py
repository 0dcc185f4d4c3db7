"""Which models of which ranks are one model: the ranks that train it together, with what they share of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unvanish.schema.ranks import said_ranks
from unvanish.schema.run import ModelRun, Shard

COPIES_DIFFER = 1e-5  # relative; copies of one weight are equal bit by bit, its statistics are float32


@dataclass(frozen=True, slots=True)
class Member:
    """What one rank recorded of a model."""

    rank: int
    model: ModelRun

    @property
    def last(self) -> int:
        """The last step that its record speaks of, -1 where it has none."""
        model = self.model
        until = model.parameter_until or model.parameter_steps
        return max(model.steps[-1] if model.steps else -1, until[-1] if until else -1)

    def column(self, statistic: str) -> NDArray[np.float64]:
        """[rows x parameters] of one statistic."""
        flat = np.frombuffer(self.model.parameter_stats[statistic], np.float64)
        return flat.reshape(len(self.model.parameter_steps), len(self.model.info.parameters))

    def shard(self, parameter: int) -> Shard:
        """Its piece of a parameter; all of it where torch did not say otherwise."""
        info = self.model.info.parameters[parameter]
        if info.shard is not None:
            return info.shard
        return Shard(part=0, parts=1, replica=self.rank, replicas=1, numel=info.numel, samples=True)


@dataclass(frozen=True)
class Team:
    """The members of one model in the order of their ranks, the lowest first.

    `declared`: torch knew that they train it together (DDP, FSDP, a mesh); else it was seen by their numbers.
    """

    members: tuple[Member, ...]
    declared: bool

    @property
    def lead(self) -> ModelRun:
        """What the lowest rank has of it."""
        return self.members[0].model

    @property
    def ranks(self) -> tuple[int, ...]:
        """Those of the members."""
        return tuple(m.rank for m in self.members)

    @cached_property
    def streams(self) -> int:
        """How many ranks work on other samples: 1 = all see the same, and one speaks for all of them."""
        if len(self.members) == 1 and not self.declared:
            return 1
        if self.declared:
            shards = [p.shard for p in self.lead.info.parameters if p.shard is not None]
            if not all(s.samples for s in shards):
                return 1
            return max((s.parts * s.replicas for s in shards), default=1)
        same = all(_equal_losses(self.lead, m.model) for m in self.members[1:])
        return 1 if same else len(self.members)


def teams_of(members: Iterable[Member]) -> list[Team]:
    """All models of all ranks, those of one training together; by lowest rank, then as that rank counts them."""
    alike: dict[object, list[Member]] = {}
    for member in sorted(members, key=lambda m: (m.rank, m.model.info.index)):
        info = member.model.info
        key = (info.name, info.class_name, tuple((p.name, p.shape) for p in info.parameters))
        alike.setdefault(key, []).append(member)
    teams = [team for same in alike.values() for team in (*_declared(same), *_seen(same))]
    return sorted(teams, key=lambda t: (t.ranks[0], t.lead.info.index))


def _texts(member: Member) -> frozenset[str]:
    """The groups of ranks that hold its parameters."""
    return frozenset(p.shard.ranks for p in member.model.info.parameters if p.shard is not None)


def _declared(members: Sequence[Member]) -> list[Team]:
    """Members are of one team where any parameter of theirs is held by the same group of ranks."""
    left = [(m, texts) for m in members if (texts := _texts(m))]
    teams = []
    while left:
        group, known = [left[0][0]], set(left[0][1])
        rest = left[1:]
        grown = True
        while grown:
            joined = [(m, t) for m, t in rest if t & known]
            rest = [(m, t) for m, t in rest if not t & known]
            grown = bool(joined)
            for member, texts in joined:
                group.append(member)
                known |= texts
        teams.append(Team(tuple(sorted(group, key=lambda m: m.rank)), declared=True))
        left = rest
    return teams


def _seen(members: Sequence[Member]) -> list[Team]:
    """Members without shards: copies where weights, gradients and updates are equal at all common steps."""
    groups: list[list[Member]] = []
    for member in members:
        if _texts(member):
            continue
        group = next((g for g in groups if copies(g[0], member)), None)
        if group is None:
            groups.append([member])
        else:
            group.append(member)
    return [Team(tuple(g), declared=False) for g in groups]


def copies(a: Member, b: Member) -> bool:
    """Whether two members hold the same weights, and make the same steps, as far as both were looked at."""
    steps, _, _ = common_rows(a, b)
    return bool(len(steps)) and first_difference(a, b) is None


def first_difference(a: Member, b: Member) -> int | None:
    """The first step at which the weights or gradients of two members differ; None where they never do."""
    steps, rows, others = common_rows(a, b)
    apart = np.zeros(len(steps), dtype=bool)
    for statistic in ("weight_rms", "gradient_rms", "update_rms"):
        one, other = a.column(statistic)[rows], b.column(statistic)[others]
        scale = np.maximum(np.abs(one), np.abs(other))
        with np.errstate(invalid="ignore"):  # what is NaN or Inf on both is no difference
            apart |= (np.abs(one - other) > COPIES_DIFFER * scale).any(1)
    return int(steps[apart.argmax()]) if apart.any() else None


def common_rows(a: Member, b: Member) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Steps that both looked at singly, and the rows of each."""
    found = []
    for member in (a, b):
        first = np.frombuffer(member.model.parameter_steps, np.int64)
        until = np.frombuffer(member.model.parameter_until or member.model.parameter_steps, np.int64)
        rows = np.flatnonzero(first == until)
        found.append((first[rows], rows))
    steps, at, other = np.intersect1d(found[0][0], found[1][0], assume_unique=True, return_indices=True)
    return steps, found[0][1][at], found[1][1][other]


def _equal_losses(a: ModelRun, b: ModelRun) -> bool:
    one = dict(zip(a.steps, a.losses, strict=True))
    both = [(one[s], x) for s, x in zip(b.steps, b.losses, strict=True) if s in one]
    return all(x == y or (x != x and y != y) for x, y in both)


def unique_names(names: Sequence[str], ranks: Sequence[tuple[int, ...]]) -> list[str]:
    """The models' own names; with their ranks where several models have the same."""
    out = [
        f"{name} ({said_ranks(own)})" if names.count(name) > 1 else name
        for name, own in zip(names, ranks, strict=True)
    ]
    return [n if out.count(n) == 1 else f"{n}#{i}" for i, n in enumerate(out)]
