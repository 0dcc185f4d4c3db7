"""WaveNet-like gated causal convolutions that raise an alarm from three vital signs."""
import math
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_patients(n=640, t=48):
    time = torch.arange(t) / t
    kind = torch.randint(0, 3, (n,))
    freq = 2.0 + 2.5 * kind[:, None, None]
    phase = torch.rand(n, 3, 1) * 2 * math.pi
    return torch.sin(2 * math.pi * freq * time + phase) + 0.2 * torch.randn(n, 3, t), kind


class GatedConv(nn.Module):
    def __init__(self, ch, dilation):
        super().__init__()
        self.pad = nn.ConstantPad1d((dilation, 0), 0.0)
        self.filter = nn.Conv1d(ch, ch, 2, dilation=dilation)
        self.gate = nn.Conv1d(ch, ch, 2, dilation=dilation)

    def forward(self, x):
        z = self.pad(x)
        return torch.tanh(self.filter(z)) * torch.sigmoid(self.gate(z))


class AlarmNet(nn.Module):
    def __init__(self, ch=16, depth=10, skip=False):
        super().__init__()
        self.skip = skip
        self.stem = nn.Conv1d(3, ch, 1)
        self.layers = nn.ModuleList([GatedConv(ch, 2 ** (i % 5)) for i in range(depth)])
        self.head = nn.Linear(ch, 3)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x) if self.skip else layer(x)
        return self.head(x.abs().mean(dim=2))


def main():
    loader = DataLoader(TensorDataset(*make_patients()), batch_size=32, shuffle=True)
    net = AlarmNet(skip="--cured" in sys.argv)
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    crit = nn.CrossEntropyLoss()
    losses = []
    for epoch in range(10):
        for x, y in loader:
            opt.zero_grad()
            loss = crit(net(x), y)
            loss.backward()
            opt.step()
            losses.append(loss.item())
        print("epoch", epoch, "loss", round(losses[-1], 4))
    print("final loss:", sum(losses[-10:]) / 10)


main()
