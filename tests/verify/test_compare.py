"""What may be said after trials, on curves whose answer is known."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from unvanish.verify.compare import Sample, differences, judge, learnt, mechanism
from unvanish.verify.trial import Target, TrialOutcome, TrialSpec

CHANCE = 2.0


def spec(seed: int, candidate: str = "x") -> TrialSpec:
    return TrialSpec(candidate=candidate, prescriptions=(), target=Target(program="train.py"), seed=seed)


def outcome(
    seed: int, last: float, *, noise: float = 0.0, first: float = CHANCE, **more: object
) -> TrialOutcome:
    rng = random.Random(seed)
    losses = tuple((first if i < 50 else last) + rng.gauss(0, noise) for i in range(100))
    facts = {"measured_gain": 0.02, "predicted_gain": 0.02, "depth": 12, **more}
    return TrialOutcome(spec=spec(seed), losses=losses, **facts)  # type: ignore[arg-type]


def sample(*last: float, chance: float | None = CHANCE, **more: object) -> Sample:
    return Sample(
        outcomes=tuple(outcome(s, x, noise=0.01, **more) for s, x in enumerate(last)), chance=chance
    )


STUCK = sample(2.0, 2.01, 2.02, 2.0, 1.99)
CURED = {"measured_gain": 0.9, "predicted_gain": 1.0}


@pytest.mark.parametrize(
    ("last", "noise", "chance", "wanted"),
    [
        (1.0, 0.01, CHANCE, True),
        (1.95, 0.01, CHANCE, False),  # 2.5 % below chance
        (1.85, 0.01, CHANCE, True),  # 7.5 % below
        (1.85, 0.6, CHANCE, False),  # 7.5 %, within the noise of the batches
        (1.0, 0.01, None, True),  # half of its own first loss
        (1.97, 0.01, None, False),
        (2.5, 0.01, None, False),
    ],
)
def test_learnt_is_5_percent_and_3_standard_errors(
    last: float, noise: float, chance: float | None, wanted: bool
) -> None:
    assert learnt(outcome(1, last, noise=noise), chance) is wanted


def test_a_fall_to_chance_is_not_learning() -> None:
    """Only the chance loss tells: the net first loses its bad start and then stays at the constant guess."""
    falls = outcome(1, CHANCE, first=5.0)
    assert learnt(falls, None)
    assert not learnt(falls, CHANCE)


def test_negative_losses_are_understood() -> None:
    assert learnt(outcome(1, -3.0, noise=0.01, first=-1.0), None)
    assert not learnt(outcome(1, -1.0, noise=0.01, first=-1.0), None)


@pytest.mark.parametrize(
    "losses", [(), (2.0, float("nan")), (2.0, float("inf")), tuple([2.0] * 20 + [30.0] * 10)]
)
def test_no_losses_and_divergence_are_not_learning(losses: tuple[float, ...]) -> None:
    trial = TrialOutcome(spec=spec(0), losses=losses)
    assert not learnt(trial, CHANCE)
    assert trial.diverged is bool(losses)


def test_pairs_are_by_seed_and_only_where_both_ran() -> None:
    a = Sample(outcomes=(outcome(3, 1.0), outcome(1, 0.5), outcome(2, 1.0)), chance=CHANCE)
    broken = TrialOutcome(spec=spec(2), error="lost")
    b = Sample(outcomes=(outcome(1, 2.0), broken, outcome(3, 2.0), outcome(4, 2.0)), chance=CHANCE)
    assert differences(a, b) == pytest.approx((-1.0, -1.5))


def test_cured_names_the_numbers() -> None:
    verdict, why = judge(sample(0.3, 0.31, 0.3, 0.29, 0.3, **CURED), STUCK)
    assert verdict == "cured"
    assert "0.02 -> 0.9, predicted 1" in why
    assert "5 of 5 seeds (p = 0.031)" in why


def test_a_cut_depth_counts_as_the_gain_that_it_saves() -> None:
    shallow = sample(0.3, 0.3, 0.31, 0.3, 0.3, depth=3)
    verdict, why = judge(shallow, STUCK)
    assert verdict == "cured"
    assert "over 3 layers instead of 12" in why


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"measured_gain": 0.02, "predicted_gain": 1.0}, "not for the reason given"),
        ({"measured_gain": 0.12, "predicted_gain": 1.0}, "not for the reason given"),  # 46 % of the way
        ({"measured_gain": None, "predicted_gain": 1.0}, "not measured"),
        (
            {"measured_gain": 1e-9},
            "not for the reason given",
        ),  # no change was claimed, and it fell by 7 decades
    ],
)
def test_learning_without_the_mechanism_is_improved_and_not_cured(more: dict[str, object], said: str) -> None:
    verdict, why = judge(sample(0.3, 0.3, 0.31, 0.3, 0.3, **more), STUCK)
    assert verdict == "improved"
    assert said in why


def test_where_the_gain_was_not_wrong_it_need_not_move() -> None:
    verdict, why = judge(sample(0.3, 0.3, 0.31, 0.3, 0.3), STUCK)
    assert verdict == "cured" and "no change was to be expected" in why


def test_what_learns_a_little_is_cured_only_where_it_is_ill_and_the_other_goes_twice_as_far() -> None:
    little = sample(1.5, 1.5, 1.51, 1.5, 1.49)
    far, near = sample(0.3, 0.3, 0.31, 0.3, 0.3, **CURED), sample(1.3, 1.3, 1.31, 1.3, 1.3, **CURED)
    assert judge(far, little)[0] == "improved"
    assert judge(far, little, ill=True)[0] == "cured"
    assert judge(near, little, ill=True)[0] == "improved"


def test_what_claims_nothing_of_the_flow_is_not_asked_for_it() -> None:
    lower = sample(0.3, 0.3, 0.31, 0.3, 0.3, measured_gain=None)
    assert judge(lower, STUCK, claims_flow=False)[0] == "cured"


def test_the_loss_that_the_script_holds_out_is_compared_where_there_is_one() -> None:
    one, two = outcome(1, 0.2), outcome(1, 2.0)
    seen = replace(one, held_out=((0, 9.0), (20, 3.0))), replace(two, held_out=((20, 1.0), (30, 0.5)))
    a, b = (Sample(outcomes=(o,), chance=CHANCE) for o in seen)
    assert differences(a, b) == (2.0,)
    b = Sample(outcomes=(replace(two, held_out=((30, 0.5),)),), chance=CHANCE)
    assert differences(a, b) == pytest.approx((-1.8,))


@pytest.mark.parametrize(("measured", "wanted"), [(0.12, False), (0.16, True), (0.9, True), (30.0, True)])
def test_half_of_the_predicted_decades_is_enough(measured: float, wanted: bool) -> None:
    candidate = sample(*[0.3] * 5, measured_gain=measured, predicted_gain=1.0)
    assert mechanism(candidate, STUCK)[0] is wanted


def test_without_a_prediction_the_way_to_1_is_the_claim() -> None:
    assert mechanism(sample(*[0.3] * 5, measured_gain=0.8, predicted_gain=None), STUCK)[0]
    assert not mechanism(sample(*[0.3] * 5, measured_gain=0.05, predicted_gain=None), STUCK)[0]


def test_an_explosion_is_cured_downwards() -> None:
    exploding = sample(*[2.0, 2.01, 2.0, 1.99, 2.0], measured_gain=40.0, predicted_gain=40.0)
    assert judge(sample(0.3, 0.3, 0.31, 0.3, 0.3, **CURED), exploding)[0] == "cured"


def test_a_gain_of_zero_is_a_number_too() -> None:
    dead = sample(*[2.0, 2.01, 2.0, 1.99, 2.0], measured_gain=0.0, predicted_gain=None)
    assert judge(sample(0.3, 0.3, 0.31, 0.3, 0.3, **CURED), dead)[0] == "cured"


def test_four_seeds_do_not_make_a_cure() -> None:
    verdict, why = judge(sample(0.3, 0.3, 0.31, 0.3, **CURED), STUCK)
    assert verdict == "improved"
    assert "5 pairs are needed" in why


def test_stuck_says_what_is_left_of_the_signal() -> None:
    verdict, why = judge(sample(2.0, 2.0, 2.01, 2.0, 2.0, measured_gain=0.17), STUCK)
    assert verdict == "no_better"
    assert "gain per layer 0.17: 12 layers leave 6e-05 of the signal" in why
    assert "stays at chance 2 on 5 of 5 seeds" in why


def test_without_a_pair_no_count_of_pairs_is_given() -> None:
    alone = Sample(outcomes=(replace(outcome(7, 0.5), spec=spec(7)),), chance=CHANCE)
    said, why = judge(alone, STUCK)
    assert said == "improved" and "of 0" not in why and why.endswith("untreated, on other seeds")


def test_one_stuck_seed_is_improved_at_most() -> None:
    assert judge(sample(0.3, 0.3, 2.0, 0.3, 0.3, **CURED), STUCK) == (
        "improved", "gain per layer 0.9: 12 layers leave 6e-01 of the signal; learns on 4 of 5 seeds only",
    )  # fmt: skip


def test_divergence_is_worse_than_a_calm_baseline() -> None:
    wild = Sample(outcomes=tuple(outcome(s, float("nan")) for s in range(5)), chance=CHANCE)
    assert judge(wild, STUCK)[0] == "worse"
    assert judge(wild, wild)[0] == "no_better"


def test_errors_are_a_row_with_their_reason() -> None:
    broken = Sample(outcomes=(TrialOutcome(spec=spec(0), error="the layer is gone"),), chance=CHANCE)
    assert judge(broken, STUCK) == ("failed", "the layer is gone")
    assert judge(Sample(outcomes=(), chance=None), STUCK)[0] == "failed"
    one_lost = sample(0.3, 0.3, 0.31, 0.3, 0.3, **CURED)
    one_lost = replace(
        one_lost, outcomes=(*one_lost.outcomes[:-1], TrialOutcome(spec=spec(4), error="killed"))
    )
    assert judge(one_lost, STUCK)[0] == "improved"


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        ((0.3, 0.31, 0.3, 0.29, 0.3), "improved"),
        ((0.5, 0.49, 0.51, 0.5, 0.5), "no_better"),
        ((0.9, 0.91, 0.9, 0.9, 0.89), "worse"),
        ((2.0, 2.0, 2.0, 2.0, 2.0), "worse"),
    ],
)
def test_a_healthy_baseline_is_never_cured(last: tuple[float, ...], wanted: str) -> None:
    healthy = sample(0.5, 0.5, 0.5, 0.51, 0.49, measured_gain=1.0)
    assert judge(sample(*last, **CURED), healthy)[0] == wanted


def test_a_cure_of_what_runs_away_is_measured_from_what_it_began_with_or_chance() -> None:
    wild = Sample(outcomes=tuple(outcome(s, float("nan")) for s in range(5)), chance=CHANCE)
    good = Sample(outcomes=tuple(outcome(s, 0.5 + 0.01 * s) for s in range(5)), chance=CHANCE)
    gaps = differences(good, wild)
    assert all(-CHANCE <= g < 0 and math.isfinite(g) for g in gaps)
    barely = Sample(outcomes=tuple(outcome(s, 1.5 * CHANCE) for s in range(5)), chance=CHANCE)
    assert all(g > 0 for g in differences(barely, wild))  # above chance is no gain, whatever the other does


def test_against_a_net_that_runs_away_or_is_stuck_each_seed_counts_alike() -> None:
    wild = Sample(
        outcomes=tuple(outcome(s, math.nan, first=10.0 ** (s - 1)) for s in range(5)), chance=None
    )  # heavy-tailed targets: what guessing costs differs by decades from batch to batch
    good = Sample(outcomes=tuple(outcome(s, 0.01, first=10.0 ** (s - 1)) for s in range(5)), chance=None)
    assert judge(good, wild, claims_flow=False)[0] == "cured"
    stuck = Sample(outcomes=(*wild.outcomes[:4], outcome(4, 1000.0, first=1000.0)), chance=None)
    assert judge(good, stuck, claims_flow=False)[0] == "cured"
    learns = Sample(outcomes=(*wild.outcomes[:4], outcome(4, 0.02, first=1000.0)), chance=None)
    assert judge(good, learns, claims_flow=False)[0] != "cured"
    four = Sample(outcomes=(*good.outcomes[:4], outcome(4, 2000.0, first=1000.0)), chance=None)
    assert judge(four, wild, claims_flow=False)[0] != "cured"


def test_what_is_nan_from_its_first_step_on_counts_as_what_the_treated_net_began_with() -> None:
    wild = Sample(outcomes=tuple(outcome(s, math.nan, first=math.nan) for s in range(5)), chance=None)
    good = Sample(outcomes=tuple(outcome(s, 0.5) for s in range(5)), chance=None)
    assert differences(good, wild) == pytest.approx([0.5 - CHANCE] * 5)
    assert judge(good, wild, claims_flow=False)[0] == "cured"
    flat = Sample(outcomes=tuple(outcome(s, CHANCE) for s in range(5)), chance=None)
    assert judge(flat, wild, claims_flow=False)[0] != "cured"


def test_how_far_a_net_has_run_away_is_no_matter_of_noise() -> None:
    wild = Sample(outcomes=tuple(outcome(s, 10.0 ** (2 + s)) for s in range(5)), chance=CHANCE)
    good = Sample(outcomes=tuple(outcome(s, 0.5 + 0.01 * s) for s in range(5)), chance=CHANCE)
    assert all(-CHANCE <= g < 0 for g in differences(good, wild))
    assert judge(good, wild, claims_flow=False)[0] == "cured"
    also_wild = Sample(outcomes=tuple(outcome(s, 10.0 ** (3 + s)) for s in range(5)), chance=CHANCE)
    assert all(g > 0 for g in differences(also_wild, wild))


def test_where_no_signal_came_through_before_it_has_to_arrive_now() -> None:
    dead = Sample(
        outcomes=tuple(replace(outcome(s, 2.0), measured_gain=None) for s in range(5)), chance=CHANCE
    )
    for gain, moved in ((0.9, True), (1e-3, False)):
        now = Sample(
            outcomes=tuple(replace(outcome(s, 0.5), measured_gain=gain, depth=12) for s in range(5)),
            chance=CHANCE,
        )
        assert mechanism(now, dead)[0] is moved
