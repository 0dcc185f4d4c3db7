"""What to write by hand where a program can't, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from unvanish.treatment.patch.facts import Change, Facts, Site
from unvanish.treatment.patch.text import PatchError

_MOST = 12  # lines on one change
_NAMED = 3  # blocks of one place


def snippet_for(facts: Facts, change: Change | None, error: PatchError) -> str:
    """Lines to write by hand, each with its place as file:line; and how to have it done without the source."""
    told = not error.place or error.mistake.startswith(error.place)  # the reason stands above the snippet
    lines = [] if told else [f"# {error.place}: {error.mistake}"]
    if change is not None:
        words = _WORDS.get(change.prescription.treatment)
        found = list(words(facts, change)) if words is not None else []
        lines += found[:_MOST]
        if len(found) > _MOST:
            lines.append(f"# and {len(found) - _MOST} more of the same kind")
    first = facts.optimizers[0] if facts.optimizers else None
    model = first.names[0] if first is not None and first.names else "model"
    else_where = "the training loop" if first is None else "the line that builds the optimizer"
    where = _at(first.site if first is not None else None, else_where)
    lines.append(f"# or leave the source as it is, and write before {where}:")
    lines += ["import unvanish", f'unvanish.apply({model}, "recipe.json")']
    return "\n".join(lines)


def _at(site: Site | None, otherwise: str) -> str:
    return otherwise if site is None else f"{site.file}:{site.line}"


def _born(facts: Facts, path: str) -> str:
    part = facts.parts.get(path)
    return _at(None if part is None or part.birth is None else part.birth.site, f"where {path} is built")


def _activation(facts: Facts, change: Change) -> Iterable[str]:
    for swap in change.swaps:
        yield f"# {_born(facts, swap.path)}: nn.{swap.old}(...) -> nn.{swap.new}({swap.arguments or ''})"
    for call in change.functions:
        behind = f", {call.arguments}" if call.arguments else ""
        new = "x" if call.name == "identity" else f"F.{call.name}(x{behind})"
        yield f"# {_at(call.site, 'forward')}: {' or '.join(call.old)}(x) -> {new}"
    for new_end in change.appended:
        yield f"# behind {new_end.layer} ({_born(facts, new_end.layer)}): nn.{new_end.kind}({new_end.arguments})"
    kind = change.prescription.parameters.get("kind")
    if not (change.swaps or change.functions or change.appended) and kind is not None:
        yield f"# in place of the hidden activations: {kind}"


def _norms(facts: Facts, change: Change) -> Iterable[str]:
    for norm in change.norms:
        yield (
            f"# {_born(facts, norm.layer)}: behind {norm.layer}, in front of its activation: "
            f"nn.{norm.kind}({norm.before}{norm.features})"
        )
    if change.prescription.parameters.get("at") == "norms":
        yield from _activation(facts, change)
    elif not change.norms:
        yield f"# between each layer and its activation: {change.prescription.treatment}"


def _skips(facts: Facts, change: Change) -> Iterable[str]:
    scale = change.prescription.parameters.get("scale", 1.0)
    branch = "block(x)" if scale == 1.0 else f"{scale} * block(x)"
    around: dict[str, list[str]] = {}
    for skip in change.skips:
        span = skip.first if skip.first == skip.last else f"{skip.first} ... {skip.last}"
        around.setdefault(_born(facts, skip.first), []).append(span)
    for place, spans in around.items():
        more = f" and {len(spans) - _NAMED} more" if len(spans) > _NAMED else ""
        yield f"# {place}: x = x + {branch} around {', '.join(spans[:_NAMED])}{more}"
    for call in change.call_skips:
        yield f"# {_at(call.first, 'forward')}: x = x + {branch} around the layer and its activation"
    if not (change.skips or change.call_skips):
        yield f"x = x + {branch}  # around every block that keeps the shape"


def _depth(facts: Facts, change: Change) -> Iterable[str]:
    for path in change.dropped:
        yield f"# {_born(facts, path)}: without {path}"


def _init(facts: Facts, change: Change) -> Iterable[str]:
    for drawn in change.drawn:
        if drawn.kind in ("normal", "uniform"):
            inner = (
                f"std={drawn.size:.6g}" if drawn.kind == "normal" else f"{-drawn.size:.6g}, {drawn.size:.6g}"
            )
            yield f"# {_born(facts, drawn.path)}: nn.init.{drawn.kind}_({drawn.path}.{drawn.name}, {inner})"
        elif drawn.kind == "orthogonal":
            yield f"# {_born(facts, drawn.path)}: nn.init.orthogonal_({drawn.path}.{drawn.name}, {drawn.size:.6g})"


def _rate(facts: Facts, change: Change) -> Iterable[str]:
    if not facts.optimizers:
        yield f"# in the update of the weights: the rate times {change.prescription.parameters.get('factor')}"
    for optimizer in facts.optimizers:
        where = _at(optimizer.site, "where the optimizer is built")
        factor, most = (change.prescription.parameters.get(key) for key in ("factor", "most"))
        yield (
            f"# {where}: lr times {factor}" if most is None else f"# {where}: no lr above {most}, at any step"
        )


def _clip(facts: Facts, change: Change) -> Iterable[str]:
    names = {"norm": "clip_grad_norm_", "value": "clip_grad_value_"}
    for key, limit in change.prescription.parameters.items():
        for step in facts.steps:
            model = step.names[0] if step.names else "model"
            where = _at(step.site, "the step")
            yield f"torch.nn.utils.{names.get(key, key)}({model}.parameters(), {limit})  # before {where}"


def _inputs(_: Facts, __: Change) -> Iterable[str]:
    yield "x = (x - x.mean(0)) / x.std(0)  # where the data is loaded, with the numbers of the training data"


def _precision(_: Facts, change: Change) -> Iterable[str]:
    mode = change.prescription.parameters.get("mode")
    if mode == "loss_scaling":
        yield "scaler = torch.amp.GradScaler()  # then, in the loop:"
        yield "scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update()"
    elif mode == "master_weights":
        yield "# keep the model in float32, and run its forward under:"
        yield 'with torch.autocast("cuda", dtype=torch.bfloat16):'
    elif mode == "guarded":
        yield "# in forward: (x + 1e-6).sqrt(), (x + 1e-6).log(), x / (y + 1e-3); no softmax masked whole"
    else:
        yield f"model.to(torch.{mode})  # and the data with it"


def _reconnect(facts: Facts, _: Change) -> Iterable[str]:
    for name in facts.frozen:
        yield f"# {_born(facts, name.rpartition('.')[0])}: {name}.requires_grad_(True)"
    for optimizer in facts.optimizers:
        model = optimizer.names[0] if optimizer.names else "model"
        yield f"# {_at(optimizer.site, 'where the optimizer is built')}: hand in {model}.parameters()"


def _gated(facts: Facts, change: Change) -> Iterable[str]:
    yield from _activation(facts, change)
    bias = change.prescription.parameters.get("forget_bias", 1.0)
    yield f"# and set the second gate of each bias_hh so that it and that of bias_ih add up to {bias}"


_WORDS: dict[str, Callable[[Facts, Change], Iterable[str]]] = {
    "activation": _activation,
    "output": _activation,
    "batchnorm": _norms,
    "layernorm": _norms,
    "groupnorm": _norms,
    "residual": _skips,
    "simplify": _depth,
    "init": _init,
    "learning_rate": _rate,
    "clip": _clip,
    "inputs": _inputs,
    "precision": _precision,
    "reconnect": _reconnect,
    "gated_rnn": _gated,
}
