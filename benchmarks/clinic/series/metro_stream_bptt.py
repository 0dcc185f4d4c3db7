"""Passenger stream forecasting in one long pass: the LSTM's state goes on from chunk to chunk, gradients do not."""

import math

import torch
from torch import nn

STREAMS, TOTAL, CHUNK = 8, 1200, 6

t = torch.arange(TOTAL + 1.0)
phase = torch.rand(STREAMS, 1) * 2 * math.pi
flow = torch.sin(t * 2 * math.pi / 30 + phase) + 0.6 * torch.sin(t * 2 * math.pi / 11 + 2 * phase)
flow = flow + 0.05 * torch.randn(STREAMS, TOTAL + 1)


class Stream(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.next = nn.Linear(hidden, 1)

    def forward(self, x, state):
        out, state = self.lstm(x, state)
        return self.next(out), state


model = Stream()
optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3, alpha=0.95)
state, losses = None, []
for begin in range(0, TOTAL, CHUNK):
    x = flow[:, begin : begin + CHUNK, None]
    y = flow[:, begin + 1 : begin + CHUNK + 1, None]
    if state is not None:
        state = tuple(s.detach() for s in state)
    guess, state = model(x, state)
    loss = (guess - y).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
