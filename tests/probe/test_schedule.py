"""When a step is looked at closely, and how often the always-on tier looks."""

from __future__ import annotations

from itertools import pairwise

from unvanish.probe.schedule import BUDGET, FIRST_LOOKS, LEAN_BELOW, MAX_GAP, Pace, Schedule


def due_steps(schedule: Schedule, steps: range, ask_at: frozenset[int] = frozenset()) -> list[int]:
    due = []
    for step in steps:
        if step in ask_at:
            schedule.ask()
        if schedule.due(step):
            due.append(step)
            schedule.done(step)
    return due


def test_the_schedule_is_dense_first_and_then_log_spaced() -> None:
    due = due_steps(Schedule(ratio=1.4), range(5000))
    assert due[:5] == [0, 1, 2, 3, 4]
    assert len(due) < 35
    assert max(b - a for a, b in pairwise(due)) <= MAX_GAP


def test_every_overrules() -> None:
    assert due_steps(Schedule(ratio=1.4, every=7), range(30), frozenset((8,))) == [0, 7, 14, 21, 28]


def test_a_change_begins_the_schedule_anew() -> None:
    due = due_steps(Schedule(ratio=1.4), range(5000), frozenset((3000,)))
    assert [s for s in due if 3000 <= s < 3010][:5] == [3000, 3001, 3002, 3003, 3004]


def test_training_that_jumps_all_day_is_not_traced_all_day() -> None:
    due = due_steps(Schedule(ratio=1.4), range(20_000), frozenset(range(20_000)))
    assert len(due) < 400


def pace_after(cost: float, period: float, steps: int) -> Pace:
    pace, now = Pace(), 0.0
    for step in range(steps):
        looked = pace.due(step)
        now += period
        pace.spent(cost if looked else cost / 10, now, looked=looked)
    return pace


def test_the_pace_keeps_to_its_budget() -> None:
    assert pace_after(cost=0.5 * BUDGET, period=1.0, steps=2000).every == 1
    slow = pace_after(cost=8 * BUDGET, period=1.0, steps=5000)
    assert 4 <= slow.every <= 64
    assert pace_after(cost=100.0, period=1.0, steps=20_000).every == 64


def test_the_first_steps_are_all_looked_at() -> None:
    assert pace_after(cost=100.0, period=1.0, steps=FIRST_LOOKS).every == 1
    assert all(pace_after(cost=100.0, period=1.0, steps=5000).due(step) for step in range(FIRST_LOOKS))


def test_the_pace_recovers() -> None:
    pace = pace_after(cost=1.0, period=1.0, steps=5000)
    now = 1e6
    for step in range(50_000):
        now += 1.0
        pace.spent(0.0, now, looked=pace.due(step))
    assert pace.every == 1


def test_where_every_step_is_traced_those_of_the_log_spaced_plan_are_full() -> None:
    dense, plain = Schedule(ratio=1.4, every=1), Schedule(ratio=1.4)
    full, due = [], []
    for step in range(200):
        assert dense.due(step)
        full += [step] if dense.full(step) else []
        dense.done(step)
        if plain.due(step):
            due.append(step)
            plain.done(step)
    assert full == due and len(full) < 30
    assert all(Schedule(ratio=1.4, every=LEAN_BELOW).full(step) for step in range(200))
    dense.ask()
    assert dense.full(200), "after a change all is measured again"
