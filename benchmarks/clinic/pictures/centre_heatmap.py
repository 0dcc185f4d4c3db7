"""Anchor-free detection in miniature: predict a heatmap with one hot spot per object centre."""

import math
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F


def scene(n, size=16):
    ys, xs = torch.randint(3, size - 3, (2, n))
    grid = torch.arange(size)
    dy = (grid[None, :, None] - ys[:, None, None]).abs()
    dx = (grid[None, None, :] - xs[:, None, None]).abs()
    image = ((dy + dx) <= 3).float() + 0.2 * torch.randn(n, size, size)
    target = torch.exp(-(dy**2 + dx**2) / 2.0)
    return image.unsqueeze(1), (target > 0.5).float().unsqueeze(1)


class Detector(nn.Module):
    def __init__(self, ch=16, prior=0.01):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, ch, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(ch, ch, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(ch, ch, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Conv2d(ch, ch, 3, padding=1), nn.ReLU(), nn.Conv2d(ch, 1, 1))
        self._reset(-math.log((1 - prior) / prior))

    def _reset(self, prior_bias):
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)
                nn.init.constant_(m.bias, 0.0 if "--cured" in sys.argv else prior_bias)
        nn.init.constant_(self.head[-1].bias, prior_bias)

    def forward(self, x):
        return self.head(self.backbone(x))


def main():
    detector = Detector()
    opt = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    history = []
    for _ in range(180):
        image, target = scene(16)
        logits = detector(image)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(image)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        opt.step()
        history.append(loss.item())
    print("final loss:", sum(history[-10:]) / 10)


main()
