"""Which unit was paged? The first symbol of a call names it, the rest is chatter. A GRU reads along."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

SYMBOLS, LENGTH, HIDDEN = 8, 30, 32


class PagerNet(nn.Module):
    def __init__(self, gate_bias):
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, 16)
        self.gru = nn.GRU(16, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, SYMBOLS)
        # start with a long memory: bias of the update gate (second third of the stacked biases)
        with torch.no_grad():
            self.gru.bias_ih_l0[HIDDEN : 2 * HIDDEN] = gate_bias
            self.gru.bias_hh_l0[HIDDEN : 2 * HIDDEN] = gate_bias

    def forward(self, calls):
        _, last = self.gru(self.embed(calls))
        return self.out(last[0])


net = PagerNet(gate_bias=2.0 if "--cured" in sys.argv else -2.0)
optimizer = torch.optim.Adam(net.parameters(), lr=6e-3)
losses = []
for step in range(200):
    calls = torch.randint(0, SYMBOLS, (48, LENGTH))
    loss = F.cross_entropy(net(calls), calls[:, 0])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(step, losses[-1])
print("final loss:", sum(losses[-10:]) / 10)
