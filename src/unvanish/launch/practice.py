"""A training loop for a model that comes alone, without a script: what a factory's trials run."""

from __future__ import annotations

import itertools

import torch

from unvanish.errors import UsageError
from unvanish.launch.factory import Built
from unvanish.probe.batch import as_call

RATE = 0.05
MOMENTUM = 0.9


def practise(built: Built) -> None:
    """Train on the factory's one batch, by SGD with momentum, until the trial ends it.

    SGD, since adaptive optimizers hide a lost signal for a while and are slow on it all the same. Steps follow the
    trial's length; the rate is tried over a grid by the trials.

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
    for _ in itertools.count():
        optimizer.zero_grad()
        loss_of(model(*call.args, **call.kwargs)).backward()
        optimizer.step()
