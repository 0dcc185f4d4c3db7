"""The words and number formats that the page and the terminal share, so that both tell the same story."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unvanish.schema.chain import Chain, Factor
from unvanish.schema.finding import Finding, ModelDiagnosis
from unvanish.schema.graph import place
from unvanish.schema.run import ModelRun, Run

VERDICT_WORDS = {
    "sick": "Sick",
    "not_learning": "Not learning",
    "inconclusive": "Inconclusive",
    "healthy": "Healthy",
}
KIND_WORDS = {
    "vanishing_gradients": "the gradients vanish on their way back",
    "exploding_gradients": "the gradients explode on their way back",
    "dead_units": "units are dead",
    "precision_underflow": "the gradients round to zero",
    "non_finite": "values turn NaN or infinite",
    "disconnected_parameters": "some parameters get no gradient",
    "learning_rate_too_small": "the learning rate is too small",
    "learning_rate_too_large": "the learning rate is too large",
    "uninformative_data": "the data do not tell the labels apart",
    "loss_or_output_mismatch": "the loss does not fit the output",
    "plateau": "the loss sits on a plateau",
}
CAUSE_WORDS = {
    "saturating_activation": "saturating activations",
    "init_too_small": "weights that start too small",
    "init_too_large": "weights that start too large",
    "too_deep": "depth",
    "recurrence": "recurrence over many steps",
    "attention_saturation": "saturated attention",
    "normalization": "normalisation",
    "bias_drift": "biases that drifted",
    "learning_rate": "the learning rate",
    "low_precision": "low precision",
    "symmetry": "symmetric units",
    "detached": "a detached tensor",
    "frozen": "frozen parameters",
    "not_in_optimizer": "parameters that no optimizer holds",
    "labels": "the labels",
    "inputs": "the inputs",
    "output_activation": "the output activation",
    "unknown": "a cause not yet known",
}
ADVICE = {
    "activation": "swap the saturating activations for (leaky) ReLU together with He initialisation",
    "init": "start the weights at the scale that fits the activation (He for ReLU, Xavier for tanh)",
    "batchnorm": "put a batch norm between each linear layer and its activation",
    "layernorm": "put a layer norm before each block",
    "groupnorm": "put a group norm where the batch is too small for batch norm",
    "residual": "add identity skips around the layers of equal width",
    "simplify": "take layers out until the signal reaches the first one",
    "learning_rate": "change the learning rate (try a factor of 3 and of 10)",
    "clip": "clip the gradient norm, and lower the learning rate",
    "gated_rnn": "use a GRU or an LSTM, with a bias that lets its gates remember (forget gate: 1 or more)",
    "precision": "train in float32 or bfloat16, or scale the loss",
    "reconnect": "reconnect the parameters: look for detach(), no_grad, frozen or forgotten parameters",
    "inputs": "normalise the inputs, and check that they differ from sample to sample",
    "output": "match the last layer to the loss (no sigmoid or softmax before a loss that applies its own)",
}
_OFF_ZERO = (
    "keep divisors, and what a root or a logarithm is taken of, away from zero (add an epsilon), and let no mask "
    "close a whole row of a softmax"
)
STATUS_WORDS = {
    "running": "The run is still going on; this is what is known so far.",
    "finished": "The run finished.",
    "stopped": "The run was stopped at the step that was asked for.",
    "interrupted": "The run was interrupted by hand; what came before is kept.",
    "crashed": "The run crashed; what came before is kept.",
    "cut_off": "The run was cut off: its process was killed. What it had recorded up to then is shown here.",
}
OUTCOME_WORDS = {
    "cured": "cured",
    "improved": "improved",
    "no_better": "no better",
    "worse": "worse",
    "failed": "failed",
}
PARTS = ("activation", "weight", "norm", "skip", "other")
_PART_WORDS = {
    "activation": "activation derivatives",
    "weight": "weights",
    "norm": "normalisation",
    "skip": "skip connections",
    "other": "other operations",
}


def plain(value: float | None, digits: int = 2) -> str:
    """A number as people write it, with `digits` significant digits: 0.020, 1.2e-9, 2.303 (digits=4)."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 < power < 5:
        return f"{value:.{max(digits - 1 - power, 0)}f}"
    return f"{mantissa}e{power}"


def decades(value: float | None) -> str:
    """A log10 with one decimal and its sign; a true minus, because these stand in columns."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "all lost" if value < 0 else "unbounded"
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def count(number: float) -> str:
    """How many: with commas, or as a power of ten."""
    return f"{number:,.0f}" if number < 1e9 else plain(number, 3)


def listed(items: Sequence[str], limit: int = 3) -> str:
    """Items as a sentence has them: "a, b and c", or "a, b, c and 9 more"."""
    if len(items) > limit:
        return f"{', '.join(items[:limit])} and {len(items) - limit} more"
    return " and ".join((", ".join(items[:-1]), items[-1])) if len(items) > 1 else "".join(items)


def shortened(name: str, length: int) -> str:
    """A long name with its middle left out; both ends of a dotted path tell something."""
    if len(name) <= length:
        return name
    head = (length - 1) // 3
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - (length - 1 - head) :]}"


def verdict_line(model: ModelDiagnosis) -> str:
    """What the model has, in one line: the word, then what it means here."""
    return f"{VERDICT_WORDS[model.verdict]}: {claim(model)}"


# kinds that the product of factors says something about
CHAIN_KINDS = frozenset(
    ("vanishing_gradients", "exploding_gradients", "dead_units", "loss_or_output_mismatch")
)


def claim(model: ModelDiagnosis) -> str:
    """What the verdict means for this model, without its word."""
    if model.verdict in ("sick", "not_learning") and model.findings:
        first = model.findings[0]
        said = first.cause == "unknown" or first.kind.startswith(first.cause)  # "learning rate too small"
        cause = "" if said else f", because of {CAUSE_WORDS[first.cause]}"
        return f"{KIND_WORDS[first.kind]}{cause}."
    if model.verdict == "healthy" and any(s.what == "backprop signal by layer" for s in model.skipped):
        return "the loss falls; the signal inside of the model was not traced."
    return {
        "sick": "the learning signal does not get through.",
        "not_learning": "the loss does not come down.",
        "healthy": "the learning signal reaches every layer.",
        "inconclusive": "what was seen does not suffice to say.",
    }[model.verdict]


def why_line(model: ModelDiagnosis) -> str:
    """Why: the first finding's own sentence, else the reason of the verdict."""
    if model.verdict in ("sick", "not_learning") and model.findings:
        return sentence(capital(model.findings[0].summary))
    return sentence(capital(model.reason)) or "Nothing out of range was seen in what was checked."


def next_line(model: ModelDiagnosis) -> str:
    """What to do now, in plain words."""
    if model.verdict == "healthy":
        notes = [f.summary for f in model.findings]
        return "Keep training." + (f" Keep an eye on this: {sentence(notes[0])}" if notes else "")
    if model.verdict == "inconclusive":
        # a rule that this version does not have is nothing that the user could supply
        missing = [f"{s.what} ({s.why})" for s in model.skipped if s.what not in KIND_WORDS]
        return f"Get what is missing: {listed(missing)}." if missing else "Watch more steps, then ask again."
    steps = advice(model.findings[0]) if model.findings else ()
    if not steps:
        return "Look at the evidence; there is no standard treatment for this one."
    if len(steps) == 1:
        return sentence(capital(steps[0]))
    first, *others = steps
    return f"{capital(first)}. If that does not fit: {'; or '.join(others[:2])}."


def advice(finding: Finding) -> tuple[str, ...]:
    """What each of the finding's treatments means, in order of rank."""
    made = finding.kind == "non_finite" and finding.cause != "low_precision"
    return tuple(_OFF_ZERO if made and name == "precision" else ADVICE[name] for name in finding.treatments)


def status_line(run: Run) -> str:
    """How the run ended, said plainly."""
    line = STATUS_WORDS[run.status]
    if run.status == "crashed" and run.message:
        line += f" Its last words: {run.message.strip().splitlines()[-1]}"
    if run.events_dropped:
        line += f" {run.events_dropped} events could not be recorded."
    return line


def attribution_sentence(chain: Chain) -> str:
    """Who took how much: "Of the 10.2 decades lost between 11 and 0, sigmoid derivatives took 9.1 ..."."""
    total = chain.decades
    if not chain.factors:
        return f"The output is made by {place(chain.layer) or 'this layer'} itself: what leaves the loss arrives."
    where = (
        f"between {place(chain.output_layer) or 'the output'} and {place(chain.layer)} at step {chain.step}"
    )
    if math.isnan(total):
        return f"The signal {where} is not a number."
    if math.isinf(total):
        stop = next((factor_label(f) for f in chain.factors if not f.gain > 0), None)
        how = f"is exactly zero from {stop} on" if stop else "rounds to zero on the way"
        return f"Nothing arrives {where}: the signal {how}."
    parts = {p: getattr(chain.attribution, p) for p in PARTS}
    if abs(total) < 0.05:
        return f"The signal keeps its size {where}."
    sign = math.copysign(1.0, total)
    with_it = sorted((p for p in PARTS if parts[p] * sign >= 0.05), key=lambda p: -parts[p] * sign)
    against = [p for p in PARTS if parts[p] * sign <= -0.05]
    verbs = ("lost", "took", "gave back") if total < 0 else ("gained", "gave", "took back")
    shares = [f"{part_words(chain, p)} {verbs[1]} {abs(parts[p]):.1f}" for p in with_it]
    back = [f"{part_words(chain, p)} {verbs[2]} {abs(parts[p]):.1f}" for p in against]
    told = listed(shares, 5) + (f", while {listed(back, 5)}" if back else "")
    return f"Of the {abs(total):.1f} decades {verbs[0]} {where}, {told}."


def looked_at(model: ModelRun) -> str:
    """Which numbers of a model are those of all elements, and which of a sample."""
    some = [p.sampled for p in model.info.parameters if not p.exact]
    signals = [s.sampled for t in model.traces for s in t.stats if s.sampled is not None]
    if not some and not signals:
        return "every element"
    parts = []
    if some:
        parts.append(
            f"about {max(some):,} elements of {len(some):,} of {len(model.info.parameters):,} tensors"
        )
    if signals:
        parts.append(f"{min(signals):,} or more of each larger signal")
    return f"samples: {'; '.join(parts)}"


def chain_looked_at(chain: Chain) -> str:
    """Whether a chain's norms are those of all elements."""
    if chain.sampled is None:
        return "Every norm is that of all elements."
    some = f"samples of {chain.sampled:,} elements or more"
    return f"Norms of large tensors are estimated from {some}; watched with --exact, they are those of all."


def part_words(chain: Chain, part: str) -> str:
    """The name of a share of the attribution; activations by their own name when there is only one kind."""
    if part == "activation":
        names = {f.name.lower() for f in chain.factors if f.kind == "activation"}
        if len(names) == 1:
            return f"{names.pop()} derivatives"
    return _PART_WORDS[part]


def factor_label(factor: Factor) -> str:
    """Where a factor of the product comes from: "layers.3 Addmm"."""
    return f"{factor.module} {factor.name}" if factor.module else factor.name


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends already or goes on below."""
    text = text.strip()
    return text if not text or text[-1] in ".!?:" else text + "."


def capital(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]
