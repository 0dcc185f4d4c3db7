"""Recall: the sign seen at the first of 60 steps must be told at the last. nn.RNN, Adam."""

import sys

import torch
from torch import nn

cured = "--cured" in sys.argv
STEPS = 60


class Recall(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.rnn = nn.RNN(2, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)
        if cured:
            nn.init.orthogonal_(self.rnn.weight_hh_l0)
            nn.init.zeros_(self.rnn.bias_hh_l0)
            nn.init.zeros_(self.rnn.bias_ih_l0)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.out(h[-1]).squeeze(1)


def batch(n=64):
    bits = torch.randint(0, 2, (n,)).float()
    x = torch.zeros(n, STEPS, 2)
    x[:, :, 1] = 0.05 * torch.randn(n, STEPS)
    x[:, 0, 0] = bits * 2 - 1
    return x, bits


model = Recall()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss_fn = nn.BCEWithLogitsLoss()
losses = []
for step in range(250):
    x, bits = batch()
    loss = loss_fn(model(x), bits)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
    if step % 50 == 49:
        print(step + 1, sum(losses[-50:]) / 50)
print("final loss:", sum(losses[-10:]) / 10)
