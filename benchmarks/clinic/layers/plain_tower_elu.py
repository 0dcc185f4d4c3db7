"""Four textures told apart by a tower of 3x3 convolutions."""

import sys

import torch
from torch import nn

DEPTH = 3 if "--cured" in sys.argv else 22
WIDTH, SIZE = 12, 8


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(DEPTH))
        self.last = nn.Linear(WIDTH, 4)

    def forward(self, x):
        x = nn.functional.elu(self.first(x))
        for layer in self.layers:
            x = nn.functional.elu(layer(x))
        return self.last(x.mean(dim=(2, 3)))


def textures(n):
    label = torch.randint(0, 4, (n,))
    i = torch.arange(SIZE)
    shift = torch.randint(0, 2, (n, 1, 1))
    rows, columns = i[None, :, None] + shift, i[None, None, :] + shift
    patterns = torch.stack([
        (rows % 2).expand(n, SIZE, SIZE),
        (columns % 2).expand(n, SIZE, SIZE),
        (rows + columns - shift) % 2,
        torch.randint(0, 2, (n, SIZE, SIZE)),
    ])
    x = patterns[label, torch.arange(n)].float() * 2 - 1
    return (x + 0.3 * torch.randn(n, SIZE, SIZE))[:, None], label


torch.set_num_threads(1)
tower = Tower()
optimizer = torch.optim.SGD(tower.parameters(), lr=0.02, momentum=0.9, nesterov=True)
losses = []
for step in range(150):
    x, label = textures(16)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(tower(x), label)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss: %.4f" % (sum(losses[-10:]) / 10))
