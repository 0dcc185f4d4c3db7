"""Sine, square or sawtooth? A stack of one-dimensional convolutions on noisy snippets."""

import sys

import torch
from torch import nn

act = nn.Tanh if "--cured" in sys.argv else nn.Sigmoid


def snippets(n, length=40):
    shape = torch.randint(0, 3, (n,))
    t = torch.linspace(0, 1, length)[None]
    phase = (t * (2 + 3 * torch.rand(n, 1)) + torch.rand(n, 1)) % 1
    waves = torch.stack([torch.sin(6.2832 * phase), torch.sign(phase - 0.5), 2 * phase - 1])
    x = waves[shape, torch.arange(n)] + 0.1 * torch.randn(n, length)
    return x.unsqueeze(1), shape


layers = [nn.Conv1d(1, 16, 5, padding=2), act()]
for _ in range(5):
    layers += [nn.Conv1d(16, 16, 3, padding=1), act()]
features = nn.Sequential(*layers)
classifier = nn.Linear(16, 3)

params = [*features.parameters(), *classifier.parameters()]
sgd = torch.optim.SGD(params, lr=0.05, momentum=0.9, nesterov=True)
history = []
for step in range(250):
    x, y = snippets(24)
    z = features(x).amax(dim=2)
    loss = nn.functional.cross_entropy(classifier(z), y)
    sgd.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(params, 1.0)
    sgd.step()
    history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
