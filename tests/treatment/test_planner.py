"""What is tried for which finding, and in which order."""

from __future__ import annotations

from typing import get_args

import pytest

from unvanish.diagnose.causes import TREATMENTS as ADVICE
from unvanish.schema.architecture import LayerSpec
from unvanish.schema.finding import Cause, Evidence, Finding, Kind
from unvanish.treatment.candidate import FLOW_TREATMENTS
from unvanish.treatment.catalogue import flow_candidates, gated_cells
from unvanish.treatment.planner import candidates_for
from unvanish.treatment.registry import TREATMENTS

FLOW = flow_candidates(())


def found(kind: Kind, cause: Cause, *, first_step: int = 0) -> Finding:
    evidence = Evidence(layer="a", statistic="s", value=1.0, threshold=0.0, steps=(0, 1), source="here")
    return Finding(
        kind=kind,
        cause=cause,
        severity="critical",
        confidence=0.9,
        layers=("a",),
        first_step=first_step,
        summary="it is so",
        evidence=(evidence,),
        treatments=ADVICE[cause],
    )


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("cause", get_args(Cause))
def test_every_finding_has_candidates_that_can_be_read_each_once(kind: Kind, cause: Cause) -> None:
    made = candidates_for(found(kind, cause), FLOW)
    assert made and len({c.name for c in made}) == len(made)
    for one in made:
        for prescription in one.prescriptions:
            TREATMENTS.read(prescription)


def test_a_signal_that_is_lost_from_the_start_goes_by_the_screening() -> None:
    order = tuple(reversed(FLOW))
    made = candidates_for(found("vanishing_gradients", "saturating_activation"), order)
    assert made[: len(order)] == order
    assert not {c.treatment for c in made[len(order) :]} & FLOW_TREATMENTS


@pytest.mark.parametrize(
    ("kind", "cause", "first"),
    [
        ("vanishing_gradients", "recurrence", "gru"),
        ("exploding_gradients", "learning_rate", "learning_rate_0.1"),
        ("learning_rate_too_small", "learning_rate", "learning_rate_10"),
        ("precision_underflow", "low_precision", "float32"),
        ("disconnected_parameters", "frozen", "reconnect"),
        ("loss_or_output_mismatch", "output_activation", "output_identity"),
        ("uninformative_data", "inputs", "inputs"),
    ],
)
def test_the_first_is_what_the_cause_asks_for(kind: Kind, cause: Cause, first: str) -> None:
    assert candidates_for(found(kind, cause), FLOW)[0].name == first


def test_what_begins_later_does_not_go_by_a_screening_at_the_start() -> None:
    late = candidates_for(found("vanishing_gradients", "learning_rate", first_step=80), FLOW)
    assert late[0].name.startswith("learning_rate")


def test_without_a_finding_the_usual_things_are_tried() -> None:
    assert {"learning_rate", "batchnorm", "init"} <= {c.treatment for c in candidates_for(None, FLOW)}


def spec(activation: str, *, width: int = 32, predictable: bool = True) -> LayerSpec:
    return LayerSpec(
        name=activation, fan_in=width, fan_out=width, weight_variance=1.0, bias_variance=0.0,
        activation=activation, predictable=predictable,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "sized"),
    [
        ([spec("sin"), spec("identity")], True),  # its frequency is part of its weights: no scheme knows it
        ([spec("relu", predictable=False), spec("identity")], True),  # the script scales by hand, say
        ([spec("relu"), spec("tanh"), spec("identity")], False),
        (
            [spec("relu", width=1100, predictable=False)],
            False,
        ),  # five more draws of all weights would be felt
    ],
)
def test_sizes_are_tried_where_no_scheme_knows_the_function(layers: list[LayerSpec], sized: bool) -> None:
    names = {c.name for c in flow_candidates(layers)}
    assert ({"lecun_0.03", "lecun_0.1", "lecun_10"} <= names) == sized


def test_a_rate_that_was_raised_is_cut_first_where_that_can_be_what_is_wrong() -> None:
    for kind in ("exploding_gradients", "dead_units", "non_finite", "learning_rate_too_large"):
        made = candidates_for(found(kind, "learning_rate", first_step=50), FLOW, 0.05)
        assert made[0].name == "learning_rate_cut" and made[0].prescriptions[0].parameters == {"most": 0.05}
    slow = candidates_for(found("learning_rate_too_small", "learning_rate"), FLOW, 0.05)
    assert "learning_rate_cut" not in {c.name for c in slow}


def test_nan_is_guarded_against_and_half_precision_left_where_there_is_none() -> None:
    names = [c.name for c in candidates_for(found("non_finite", "normalization"), FLOW)]
    assert "guarded" in names[:4] and not {"float32", "loss_scaling", "bfloat16"} & set(names)
    low = [c.name for c in candidates_for(found("non_finite", "low_precision"), FLOW)]
    assert {"float32", "loss_scaling"} <= set(low)


def test_what_time_loses_is_first_held_by_gates_and_what_it_blows_up_made_smaller() -> None:
    cells = (*FLOW, *gated_cells())
    lost = [c.name for c in candidates_for(found("vanishing_gradients", "recurrence"), cells)]
    assert lost[:2] == ["gru", "open_gates"]
    grown = [c.name for c in candidates_for(found("exploding_gradients", "recurrence"), cells)]
    assert grown[1] == "lecun_0.3"


def test_activations_that_stand_behind_no_layer_are_candidates_all_the_same() -> None:
    assert not {"tanh_xavier", "relu_he"} & {c.name for c in FLOW}
    names = {c.name for c in flow_candidates((), hidden=frozenset(("sigmoid",)))}
    assert {"tanh_xavier", "relu_he", "centred"} <= names
