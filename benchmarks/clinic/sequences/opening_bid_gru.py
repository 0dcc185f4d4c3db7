"""Auction logs: the opening bid's class has to be told from the whole log, read by a GRU."""

import sys

import torch
import torch.nn as nn

LENGTH, CLASSES, NOISE = 45, 4, 16


def batch(size=32):
    log = torch.randint(CLASSES, CLASSES + NOISE, (size, LENGTH))
    label = torch.randint(0, CLASSES, (size,))
    log[:, 0] = label
    return log, label


class LogReader(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.embed = nn.Embedding(CLASSES + NOISE, 16)
        self.gru = nn.GRU(16, hidden, batch_first=True)
        self.out = nn.Linear(hidden, CLASSES)
        # long memory: start with the update gate closed, as in h = (1 - z) * h + z * n
        update = slice(hidden, 2 * hidden)
        with torch.no_grad():
            self.gru.bias_ih_l0[update].fill_(4.0 if "--cured" in sys.argv else -4.0)

    def forward(self, log):
        _, last = self.gru(self.embed(log))
        return self.out(last[-1])


model = LogReader()
optim = torch.optim.NAdam(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss()
losses = []
for step in range(220):
    log, label = batch()
    loss = criterion(model(log), label)
    optim.zero_grad()
    loss.backward()
    optim.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(step, loss.item())
print("final loss:", sum(losses[-10:]) / 10)
