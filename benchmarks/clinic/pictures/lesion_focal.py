"""Tiny lesions in big pictures, focal loss, RetinaNet prior on the last bias."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def focal_loss(logits, target, alpha=0.25, gamma=2.0):
    p = logits.sigmoid()
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    pt = p * target + (1 - p) * (1 - target)
    weight = alpha * target + (1 - alpha) * (1 - target)
    return (weight * (1 - pt) ** gamma * ce).mean()


class Lesions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Conv2d(8, 8, 3, padding=1)]
        )
        self.classifier = nn.Conv2d(8, 1, 1)
        nn.init.constant_(self.classifier.bias, -math.log(0.99 / 0.01))

    def forward(self, x):
        for layer in self.layers:
            x = F.relu6(layer(x))
        return self.classifier(x)


def scans(n, size=20):
    scan = 0.4 * torch.randn(n, 1, size, size)
    mask = torch.zeros_like(scan)
    for i, (r, c) in enumerate(torch.randint(0, size - 2, (n, 2)).tolist()):
        mask[i, 0, r : r + 2, c : c + 2] = 1.0
    return scan + 2.0 * mask, mask


model = Lesions()
optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3, momentum=0.5)
losses = []
for _ in range(220):
    scan, mask = scans(12)
    loss = focal_loss(model(scan), mask)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
