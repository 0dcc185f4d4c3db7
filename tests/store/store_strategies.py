"""Hypothesis strategies for the events of a run, with every float and every name that can occur."""

from __future__ import annotations

from hypothesis import strategies as st

from unvanish.schema.architecture import LayerSpec
from unvanish.schema.graph import Graph, Operation, OperationStats, ThroughTime, Trace
from unvanish.schema.run import (
    PARAMETER_STATISTICS,
    SNAPSHOT_QUANTILES,
    ModelInfo,
    OptimizerInfo,
    ParameterInfo,
    RunInfo,
    Snapshot,
)

numbers = st.floats(allow_nan=True, allow_infinity=True)
maybe_numbers = st.none() | numbers
counts = st.integers(0, 2**62)
maybe_counts = st.none() | counts
# NUL, lone surrogates (undecodable file names), SQL and HTML that want out, and names without an end
names = st.one_of(
    st.text(alphabet=st.characters(), max_size=12),
    st.sampled_from(["", "a\x00b", "\udc80x", "'; DROP TABLE run; --", "</script>", "層.0", "n" * 10_000]),
)
maybe_names = st.none() | names
statistics = st.tuples(*[numbers] * len(PARAMETER_STATISTICS))
options = st.dictionaries(names, st.none() | st.booleans() | names | numbers, max_size=3)


def infos(index: int, parameters: int) -> st.SearchStrategy[ModelInfo]:
    """A model with that many parameters."""
    one = [
        st.builds(
            ParameterInfo,
            index=st.just(i),
            name=names,
            shape=st.lists(counts, max_size=3).map(tuple),
            dtype=names,
            requires_grad=st.booleans(),
            optimizer=st.none() | st.integers(0, 3),
            sampled=counts,
        )
        for i in range(parameters)
    ]
    optimizer = st.builds(
        OptimizerInfo,
        index=st.integers(0, 3),
        class_name=names,
        learning_rates=st.lists(numbers, max_size=3).map(tuple),
        options=options,
    )
    return st.builds(
        ModelInfo,
        index=st.just(index),
        name=names,
        class_name=names,
        parameters=st.tuples(*one),
        optimizers=st.lists(optimizer, max_size=2).map(tuple),
        training_modules=counts,
    )


run_infos = st.builds(
    RunInfo,
    id=names,
    created=names,
    command=st.lists(names, max_size=3).map(tuple),
    script=maybe_names,
    seed=st.none() | st.integers(-(2**80), 2**80),
    versions=st.dictionaries(names, names, max_size=3),
    device=names,
    pid=st.integers(1, 2**31),
)
operations = st.builds(
    Operation,
    index=st.integers(0, 99),
    name=names,
    kind=st.sampled_from(["activation", "weight", "norm", "skip", "softmax", "shape", "other", "loss"]),
    module=maybe_names,
    module_class=maybe_names,
    call=counts,
    parents=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    parameters=st.lists(names, max_size=2).map(tuple),
)
graphs = st.builds(Graph, key=names, operations=st.lists(operations, max_size=3).map(tuple))
operation_stats = st.builds(
    OperationStats,
    operation=st.integers(0, 99),
    count=counts,
    norm=numbers,
    absmax=numbers,
    zeros=counts,
    nonfinite=counts,
    edge_norms=st.lists(maybe_numbers, max_size=3).map(tuple),
    parameter_norms=st.lists(maybe_numbers, max_size=3).map(tuple),
    output_count=maybe_counts,
    output_std=maybe_numbers,
    output_rms=maybe_numbers,
    units=maybe_counts,
    closed_units=maybe_counts,
)
through_times = st.builds(
    ThroughTime,
    module=names,
    layer=st.integers(0, 9),
    reverse=st.booleans(),
    norms=st.lists(numbers, max_size=4).map(tuple),
    call=st.integers(0, 3),
    samples=maybe_counts,
)
traces = st.builds(
    Trace,
    model=st.just(0),
    step=st.integers(0, 9),
    backward=st.integers(0, 3),
    graph=names,
    loss=numbers,
    stats=st.lists(operation_stats, max_size=3).map(tuple),
    output=st.none() | st.integers(0, 99),
    chance=maybe_numbers,
    through_time=st.lists(through_times, max_size=2).map(tuple),
)
snapshots = st.builds(
    Snapshot,
    model=st.just(0),
    step=counts,
    parameter=st.integers(0, 9),
    norm=numbers,
    quantiles=st.tuples(*[numbers] * len(SNAPSHOT_QUANTILES)),
)
layers = st.builds(
    LayerSpec,
    name=names,
    fan_in=counts,
    fan_out=counts,
    weight_variance=numbers,
    bias_variance=numbers,
    bias_centres=st.booleans(),
    input_second_moment=maybe_numbers,
    batch=maybe_counts,
    norm=st.sampled_from(["none", "batch", "layer", "rms", "group", "instance"]),
    activation=names,
    activation_parameters=st.dictionaries(names, numbers, max_size=2),
    skip=st.sampled_from(["none", "identity", "projection"]),
    predictable=st.booleans(),
)


def small_trace(step: int) -> Trace:
    """A trace of three operations whose numbers tell its step."""
    stats = tuple(
        OperationStats(
            operation=i,
            count=100,
            norm=1.0 + step + i / 10,
            absmax=1.0,
            zeros=i,
            nonfinite=0,
            edge_norms=(0.5, None),
            parameter_norms=(0.25,),
            output_mean=step / 7,
            unit_bits="ff" * i,
            total=float(step),
            sampled=50 if i else None,
            exponents=(0, i, 100 - i),
            bound=1.5 * i if step % 2 and i else None,
        )
        for i in range(3)
    )
    in_time = ThroughTime(module="rnn", layer=0, reverse=False, norms=(float(step), step / 3))
    return Trace(
        model=0, step=step, backward=0, graph="g", loss=1.0, stats=stats, output=2, through_time=(in_time,)
    )
