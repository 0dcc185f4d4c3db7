"""The parity of a short string of bits with a GRU: nothing for a while, then it gets it."""

import torch
from torch import nn


class Parity(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 48, batch_first=True)
        self.out = nn.Linear(48, 1)

    def forward(self, bits):
        return self.out(self.gru(bits)[1][0]).squeeze(-1)


net = Parity()
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
criterion = nn.BCEWithLogitsLoss()
trace = []
for step in range(380):
    bits = torch.randint(0, 2, (32, 4)).float()
    parity = bits.sum(1) % 2
    optimizer.zero_grad()
    loss = criterion(net(bits.unsqueeze(-1) * 2 - 1), parity)
    loss.backward()
    optimizer.step()
    trace.append(loss.item())
    if step % 100 == 99:
        print(step + 1, round(loss.item(), 3))
print("final loss:", sum(trace[-10:]) / 10)
