"""Displacement field (in metres) of a vibrating plate from its modal amplitudes: half-precision net, fp32 master weights."""

import copy
import sys

import torch
from torch import nn

SCALE = 2.0**15 if "--cured" in sys.argv else 1.0
MODES, POINTS = 8, 64


class Plate(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(MODES, 64)
        self.middle = nn.Linear(64, 64)
        self.field = nn.Linear(64, POINTS)
        nn.init.zeros_(self.field.weight)
        nn.init.zeros_(self.field.bias)

    def forward(self, a):
        a = torch.tanh(self.inner(a))
        a = torch.tanh(self.middle(a))
        return self.field(a)


amplitudes = torch.randn(1024, MODES)
shapes = torch.randn(MODES, POINTS) / MODES**0.5
metres = 1.0e-4 * torch.tanh(amplitudes @ shapes)

master = Plate()
model = copy.deepcopy(master).half()
adam = torch.optim.Adam(master.parameters(), lr=5e-4, eps=1e-12)
relative = []
for step in range(250):
    rows = torch.randint(1024, (256,))
    prediction = model(amplitudes[rows].half())
    loss = nn.functional.mse_loss(prediction.float(), metres[rows])
    model.zero_grad()
    (loss * SCALE).backward()
    for p, q in zip(master.parameters(), model.parameters()):
        p.grad = q.grad.float() / SCALE
    adam.step()
    with torch.no_grad():
        for p, q in zip(master.parameters(), model.parameters()):
            q.copy_(p)
    relative.append(loss.item() / metres.var().item())
print(f"final loss: {sum(relative[-10:]) / 10}")
