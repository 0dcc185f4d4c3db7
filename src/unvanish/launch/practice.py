"""A script for a model that comes without one: `python -m unvanish.launch.practice FILE.py:FACTORY [STEPS]`."""

from __future__ import annotations

import sys

import torch

from unvanish.errors import UnvanishError, UsageError
from unvanish.launch.factory import Built, load_factory
from unvanish.probe.batch import as_call

STEPS = 300
RATE = 0.05
MOMENTUM = 0.9


def practise(built: Built, steps: int) -> None:
    """Train on the factory's one batch, by SGD with momentum.

    SGD, since adaptive optimizers hide a lost signal for a while and are slow on it all the same; the trials try
    other rates.

    Raises:
        UsageError: no loss to train by.
    """
    if built.loss_fn is None:
        raise UsageError(
            "the factory gives no loss, so that nothing can be trained", "return (model, batch, loss_fn)"
        )
    model = built.model.train()
    call, loss_of = as_call(model, built.batch, built.loss_fn)
    if loss_of is None:
        return
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model(*call.args, **call.kwargs)).backward()
        optimizer.step()


if __name__ == "__main__":
    try:
        practise(load_factory(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else STEPS)
    except UnvanishError as fault:
        sys.exit(f"unvanish: {fault}")
