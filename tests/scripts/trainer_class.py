"""Three clouds of points, with a trainer class of our own: clipping, a schedule, callbacks. It runs on after the loss has reached (almost) zero."""
import dataclasses
import math
import sys

import torch
from torch import nn


@dataclasses.dataclass
class Settings:
    steps: int = 300
    lr: float = 0.1
    momentum: float = 0.9
    max_norm: float = 1.0
    seed: int = 5
    log_every: int = 30


class Blobs:
    """Three clouds, well apart."""

    centres = torch.tensor([[2.0, 0.0], [-1.0, math.sqrt(3)], [-1.0, -math.sqrt(3)]])

    def sample(self, n):
        labels = torch.randint(3, (n,))
        return self.centres[labels] + 0.25 * torch.randn(n, 2), labels


class Trainer:
    def __init__(self, model, data, settings, callbacks=()):
        self.model = model
        self.data = data
        self.settings = settings
        self.callbacks = list(callbacks)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=settings.momentum)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, settings.steps)
        self.criterion = nn.CrossEntropyLoss()
        self.global_step = 0

    def training_step(self, batch):
        inputs, labels = batch
        return self.criterion(self.model(inputs), labels)

    def fit(self):
        self.model.train()
        while self.global_step < self.settings.steps:
            loss = self.training_step(self.data.sample(64))
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_norm)
            self.optimizer.step()
            self.scheduler.step()
            self.global_step += 1
            for callback in self.callbacks:
                callback(self, loss.detach())


def log(trainer, loss):
    if trainer.global_step % trainer.settings.log_every == 0 or trainer.global_step == 1:
        lr = trainer.scheduler.get_last_lr()[0]
        print(f"step {trainer.global_step:4d} | lr {lr:.4f} | loss {loss.item():.3e}", file=sys.stdout)


def main():
    settings = Settings()
    torch.manual_seed(settings.seed)
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
    Trainer(model, Blobs(), settings, callbacks=[log]).fit()


if __name__ == "__main__":
    sys.exit(main())
