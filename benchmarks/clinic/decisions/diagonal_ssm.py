"""A diagonal linear state-space layer tells three kinds of heartbeat apart; the scan is written as a loop."""

import sys

import torch
from torch import nn

LENGTH, KINDS = 120, 3


class DiagonalSSM(nn.Module):
    def __init__(self, states=32):
        super().__init__()
        low, high = (0.6, 0.99) if "--cured" in sys.argv else (0.9, 1.3)
        self.decay = nn.Parameter(torch.empty(states).uniform_(low, high))
        self.drive = nn.Linear(1, states)

    def forward(self, u):
        drive = self.drive(u)
        state = torch.zeros_like(drive[:, 0])
        outputs = []
        for t in range(u.shape[1]):
            state = self.decay * state + drive[:, t]
            outputs.append(state)
        return torch.stack(outputs, 1)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.ssm = DiagonalSSM()
        self.mix = nn.Linear(32, 16)
        self.head = nn.Linear(16, KINDS)

    def forward(self, u):
        return self.head(torch.nn.functional.silu(self.mix(self.ssm(u))).mean(1))


def beats(n):
    kind = torch.randint(KINDS, (n,))
    period = torch.tensor([10.0, 20.0, 40.0])[kind][:, None]
    phase = torch.rand(n, 1) * period
    t = torch.arange(LENGTH)
    beat = torch.exp(-(((t + phase) % period) - 4).square() / 2)
    return (beat + 0.1 * torch.randn(n, LENGTH))[..., None], kind


model = Classifier()
opt = torch.optim.AdamW(model.parameters(), lr=0.004)
history = []
for step in range(120):
    u, kind = beats(24)
    loss = nn.functional.cross_entropy(model(u), kind)
    opt.zero_grad()
    loss.backward()
    opt.step()
    history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
