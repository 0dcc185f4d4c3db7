"""Batches are dicts, the model takes **batch and answers with an output object that carries the loss."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, Dataset


@dataclass
class ClassifierOutput:
    loss: Optional[torch.Tensor] = None
    logits: Optional[torch.Tensor] = None


@dataclass
class Config:
    features: int = 30
    hidden: int = 32
    blocks: int = 24
    labels: int = 2


class Block(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden)
        self.up = nn.Linear(config.hidden, 2 * config.hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(2 * config.hidden, config.hidden)

    def forward(self, hidden_states):
        return hidden_states + self.down(self.act(self.up(self.norm(hidden_states))))


class TabularClassifier(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.embed = nn.Linear(config.features, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.classifier = nn.Linear(config.hidden, config.labels)

    def forward(self, features, labels=None) -> ClassifierOutput:
        hidden_states = self.embed(features)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        logits = self.classifier(hidden_states)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ClassifierOutput(loss=loss, logits=logits)


class CancerSet(Dataset):
    def __init__(self):
        raw = load_breast_cancer()
        x = torch.tensor(raw.data, dtype=torch.float32)
        self.x = (x - x.mean(0)) / x.std(0)
        self.y = torch.tensor(raw.target)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return {"features": self.x[i], "labels": self.y[i]}


def forever(loader) -> Iterator[dict]:
    while True:
        yield from loader


def main() -> None:
    torch.manual_seed(2024)
    model = TabularClassifier(Config())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    stream = forever(DataLoader(CancerSet(), batch_size=32, shuffle=True))
    for step in range(120):
        batch = next(stream)
        output = model(**batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == 119:
            print({"step": step, "loss": round(output.loss.item(), 4)})


if __name__ == "__main__":
    main()
