"""Wind speed in metres per second an hour ahead, from the last day, with a plain RNN."""

import math
import random
import sys

import torch
from torch import nn


def record(n=1000):
    speed, level = [], 8.0
    for t in range(n):
        level += 0.1 * (8.0 - level) + random.gauss(0, 0.3)
        speed.append(max(level + 3 * math.sin(t * math.pi / 12), 0.0))
    return torch.tensor(speed)


class WindRNN(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.rnn = nn.RNN(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)
        self.out = nn.Identity() if "--cured" in sys.argv else nn.Sigmoid()

    def forward(self, x):
        states, _ = self.rnn(x)
        return self.out(self.head(states[:, -1]))


wind = record()
scaled = (wind - wind.mean()) / wind.std()
inputs = scaled.unfold(0, 24, 1)[:-1].unsqueeze(-1)
targets = wind[24:].unsqueeze(-1)

model = WindRNN()
optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-3)
history = []
for epoch in range(8):
    for rows in torch.randperm(len(inputs)).split(32):
        prediction = model(inputs[rows])
        loss = nn.functional.mse_loss(prediction, targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
