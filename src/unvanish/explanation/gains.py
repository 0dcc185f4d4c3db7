"""The gain per layer of a net, as theory expects it and as it was measured: the same convention for both."""

from __future__ import annotations

import math

from unvanish.diagnose.path import Traced
from unvanish.schema.run import ModelRun
from unvanish.theory.predict import gain_per_layer, predict_gains


def predicted_gain_per_layer(model: ModelRun) -> float | None:
    """chi, the squared gain E[delta_{l-1}^2] / E[delta_l^2], geometric mean over the hidden layers; None = no say."""
    return gain_per_layer(predict_gains(model.architecture))


def measured_gain_per_layer(model: ModelRun) -> float | None:
    """The same of the first traced step. Gauge-free (times Var z) where a norm makes the scale arbitrary."""
    layers = [layer.name for layer in model.architecture]
    trace = next((t for t in model.traces if t.graph in model.graphs), None)
    if trace is None or len(layers) < 2:
        return None
    traced = Traced(trace, model.graphs[trace.graph])
    at = {traced.operations[i].module: i for i in traced.weighted()}
    hidden = layers[:-1] if len(layers) > 2 else layers
    indices = [at[name] for name in hidden if name in at]
    if len(indices) < 2:
        return None
    normed = any(layer.norm != "none" for layer in model.architecture)
    first, last = (_mean_square(traced, i, normed) for i in (indices[0], indices[-1]))
    if not first or not last or not math.isfinite(first / last):
        return None
    return float((first / last) ** (1 / (len(indices) - 1)))


def _mean_square(traced: Traced, index: int, normed: bool) -> float | None:
    stats = traced.stats[index]
    if stats.count == 0:
        return None
    square: float = stats.norm * stats.norm / stats.count
    if not normed:
        return square
    return square * stats.output_std * stats.output_std if stats.output_std else None
