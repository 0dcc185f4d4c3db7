"""Call types of whales from little spectrograms in decibel."""

import sys

import torch
import torch.nn as nn


def spectrogram(kind):
    t = torch.linspace(0, 1, 16)
    centre = [4 + 8 * t, 12 - 8 * t, 8 + 4 * torch.sin(6.3 * t)][kind] + torch.randn(1)
    f = torch.arange(16.0)[:, None]
    power = torch.exp(-0.5 * (f - centre) ** 2) + 1e-3 * torch.rand(16, 16) + 1e-6
    return 10 * torch.log10(power) - 60


def dataset(n):
    labels = torch.randint(3, (n,))
    x = torch.stack([spectrogram(int(k)) for k in labels])[:, None]
    if "--cured" in sys.argv:
        x = (x - x.mean()) / x.std()
    return x, labels


class CallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 4 * 4, 32)
        self.fc2 = nn.Linear(32, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def main():
    x, y = dataset(900)
    model = CallNet()
    optim = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    crit = nn.CrossEntropyLoss()
    log = []
    for epoch in range(8):
        perm = torch.randperm(len(x))
        for i in range(0, len(x), 30):
            sel = perm[i : i + 30]
            optim.zero_grad()
            loss = crit(model(x[sel]), y[sel])
            loss.backward()
            optim.step()
            log.append(loss.item())
        print("epoch", epoch, "loss", log[-1])
    print("final loss:", sum(log[-20:]) / 20)


main()
