"""The river: where ways part and meet, and what of a large net is gathered."""

from __future__ import annotations

from dataclasses import replace

import builders as b
import pytest

from unvanish.present.river import NODES, river_view
from unvanish.present.signal import named_operations, signal_map
from unvanish.schema.graph import Graph, Operation, OperationStats, Trace
from unvanish.schema.run import ModelRun


def operation(
    index: int, name: str, kind: str, parents: tuple[int, ...], module: str | None = None
) -> Operation:
    return Operation(
        index=index,
        name=name,
        kind=kind,  # type: ignore[arg-type]
        module=module,
        module_class=None,
        call=0,
        parents=parents,
        parameters=(f"{module}.weight",) if kind == "weight" else (),
    )


def traced(operations: list[Operation], norms: list[float], edges: dict[int, tuple[float, ...]]) -> ModelRun:
    """A run of one trace, with these norms at its operations and on the edges to their parents."""
    graph = Graph(key="g", operations=tuple(operations))
    stats = tuple(
        OperationStats(
            operation=o.index,
            count=4,
            norm=norms[o.index],
            absmax=norms[o.index],
            zeros=0,
            nonfinite=0,
            edge_norms=edges.get(o.index, tuple(norms[o.index] for _ in o.parents)),
            parameter_norms=(1.0,) * len(o.parameters),
            output_std=1.0,
        )
        for o in operations
    )
    trace = Trace(model=0, step=7, backward=0, graph="g", loss=1.0, stats=stats, output=operations[-1].index)
    return replace(b.model_run(["a", "b", "out"]), graphs={"g": graph}, traces=(trace,))


def residual() -> ModelRun:
    """stem, then h + branch(h), then head: the skip carries 1.0, the branch 0.001."""
    operations = [
        operation(0, "Addmm", "weight", (), "stem"),
        operation(1, "Addmm", "weight", (0,), "branch"),
        operation(2, "Tanh", "activation", (1,)),
        operation(3, "Add", "skip", (0, 2)),
        operation(4, "Addmm", "weight", (3,), "head"),
    ]
    return traced(
        operations, [1.0, 0.001, 0.01, 1.0, 10.0], {3: (1.0, 0.01), 2: (0.001,), 1: (0.0001,), 4: (1.0,)}
    )


def test_a_skip_and_its_branch_are_two_ways_with_their_own_widths() -> None:
    model = residual()
    river = river_view(model, named_operations(model))
    labels = [n["label"] for n in river["nodes"]]
    assert labels == ["stem", "branch", "Add", "head"], "the tanh is no place of its own"
    ways = {(labels[e["from"]], labels[e["to"]]): e["signal"] for e in river["edges"]}
    assert ways == {
        ("stem", "branch"): pytest.approx(-5),
        ("branch", "Add"): pytest.approx(-4),  # what the tanh handed on
        ("stem", "Add"): pytest.approx(-1),
        ("Add", "head"): pytest.approx(-1),
    }
    assert [n["depth"] for n in river["nodes"]] == [0, 1, 2, 3]
    assert {n["lane"] for n in river["nodes"]} == {0}, "the longest way is the main stream"
    assert river["step"] == 7


def test_a_side_branch_has_a_lane_of_its_own() -> None:
    operations = [
        operation(0, "Addmm", "weight", (), "stem"),
        operation(1, "Addmm", "weight", (0,), "left"),
        operation(2, "Addmm", "weight", (0,), "right"),
        operation(3, "Add", "skip", (1, 2)),
    ]
    model = traced(operations, [1.0] * 4, {})
    nodes = {n["label"]: n for n in river_view(model, named_operations(model))["nodes"]}
    assert nodes["left"]["depth"] == nodes["right"]["depth"] == 1
    assert nodes["left"]["lane"] != nodes["right"]["lane"]


@pytest.mark.parametrize(("norm", "mark"), [(0.0, "zero"), (float("nan"), "nan"), (float("inf"), "nan")])
def test_a_dry_way_is_marked(norm: float, mark: str) -> None:
    operations = [operation(0, "Addmm", "weight", (), "a"), operation(1, "Addmm", "weight", (0,), "b")]
    model = traced(operations, [1.0, 1.0], {1: (norm,)})
    (edge,) = river_view(model, named_operations(model))["edges"]
    assert (edge["signal"], edge["mark"]) == (None, mark)


@pytest.mark.parametrize("name", ["blocks.{}.linear", "{}", "blocks.{}.mlp.0.deep.linear"])
def test_a_thousand_layers_are_gathered_and_none_is_lost(name: str) -> None:
    names = [name.format(i) for i in range(1000)]
    model = b.model_run(names)
    river = river_view(model, named_operations(model))
    assert 2 < len(river["nodes"]) <= NODES
    assert [row for n in river["nodes"] for row in n["rows"]] == signal_map(model)["rows"]
    assert len(river["edges"]) == len(river["nodes"]) - 1
    assert river["gathered"] >= 1000
    assert all(e["from"] < e["to"] for e in river["edges"])


def test_a_run_that_was_not_traced_has_no_river() -> None:
    model = replace(b.model_run(["a", "b"]), traces=())
    assert river_view(model, named_operations(model))["nodes"] == []


def test_gains_follow_the_graph_not_the_order_of_the_rows() -> None:
    model = residual()
    signal = signal_map(model)
    assert signal["rows"] == ["stem", "branch", "head"]
    # stem feeds the branch (-4 decades) and, past it, the head (0): the stronger of the two counts
    assert signal["gains"] == [pytest.approx(-1), pytest.approx(-4), None]
