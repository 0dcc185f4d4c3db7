"""What people most often trip over before the first training step, each with its mend in one line."""

from __future__ import annotations

import re

# (pattern of the exception's one line, what is wrong, what to do)
_HINTS: tuple[tuple[str, str, str], ...] = (
    (
        r"grad can be implicitly created only for scalar outputs",
        "the loss that backward() was called on is not a single number",
        "reduce it first, e.g. loss.mean().backward()",
    ),
    (
        r"not compiled with CUDA|No CUDA GPUs are available|Found no NVIDIA driver|no CUDA-capable device",
        "the script asks for a CUDA device and there is none here",
        'pick the device with torch.device("cuda" if torch.cuda.is_available() else "cpu")',
    ),
    (
        r"invalid device ordinal",
        "the script asks for a CUDA device of a number that is not there",
        "use cuda:0, or see torch.cuda.device_count()",
    ),
    (
        r"optimizer got an empty parameter list",
        "the model that was given to the optimizer has no parameters",
        "build the layers before the optimizer, as attributes of the module (or in an nn.ModuleList)",
    ),
    (
        r"element 0 of tensors does not require grad",
        "the loss hangs on no parameter that is trained",
        "look for detach(), .item(), .data, no_grad() or frozen parameters between the model and the loss",
    ),
    (
        r"CUDA out of memory|DefaultCPUAllocator: can't allocate memory|MemoryError",
        "the script ran out of memory",
        "make the batch smaller",
    ),
)


def hint_for(last_words: str | None) -> str | None:
    """One line, mistake; mend, for a script's last words ("RuntimeError: ..."); None where none is known."""
    for pattern, mistake, mend in _HINTS:
        if last_words and re.search(pattern, last_words):
            return f"{mistake}; {mend}"
    return None
