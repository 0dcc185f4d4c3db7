"""Copy a string after a delimiter; the strings get longer whenever a stage is over."""

import torch
from torch import nn

SYMBOLS, DELIMITER = 5, 5
STAGES = [(1, 40), (2, 50), (3, 60), (4, 110)]


class Copier(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS + 1, 16)
        self.lstm = nn.LSTM(16, hidden, batch_first=True)
        self.head = nn.Linear(hidden, SYMBOLS)

    def forward(self, ids, length):
        states, _ = self.lstm(self.embed(ids))
        return self.head(states[:, -length:])


def copy_batch(length, size=32):
    body = torch.randint(SYMBOLS, (size, length))
    gap = torch.full((size, length), DELIMITER)
    return torch.cat([body, gap], dim=1), body


class Trainer:
    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        self.losses = []

    def stage(self, length, steps):
        for _ in range(steps):
            ids, body = copy_batch(length)
            loss = nn.functional.cross_entropy(self.model(ids, length).transpose(1, 2), body)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
        print(f"length {length}: {self.losses[-1]:.4f}")


trainer = Trainer(Copier())
for length, steps in STAGES:
    trainer.stage(length, steps)
print("final loss:", sum(trainer.losses[-10:]) / 10)
