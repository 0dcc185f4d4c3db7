"""Pixel-wise segmentation of round glands in small grey images."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

SIZE = 16


def batch(n=16):
    grid = torch.arange(SIZE, dtype=torch.float32)
    cy, cx = torch.rand(2, n, 1, 1) * (SIZE - 4) + 2
    r = torch.rand(n, 1, 1) * 2 + 2.5
    mask = ((grid[None, :, None] - cy) ** 2 + (grid[None, None, :] - cx) ** 2 < r**2).float()
    image = 0.9 * mask + 0.35 * torch.randn(n, SIZE, SIZE)
    return image[:, None], mask[:, None]


class Segmenter(nn.Module):
    def __init__(self, width=8, depth=6):
        super().__init__()
        self.inp = nn.Conv2d(1, width, 3, padding=1)
        self.body = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(depth)])
        self.out = nn.Conv2d(width, 1, 1)
        for conv in [self.inp, *self.body]:
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
        self.f = F.relu if "--cured" in sys.argv else torch.sigmoid

    def forward(self, x):
        x = self.f(self.inp(x))
        for conv in self.body:
            x = self.f(conv(x))
        return self.out(x)


model = Segmenter()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
curve = []
for step in range(200):
    image, mask = batch()
    loss = F.binary_cross_entropy_with_logits(model(image), mask)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    curve.append(loss.item())
    if step % 50 == 0:
        print(step, loss.item())
print("final loss:", sum(curve[-10:]) / 10)
