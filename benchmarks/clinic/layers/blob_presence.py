"""Is there a bright blob in the picture? A little RetinaNet-like classifier with focal loss and rare positives."""

import math
import sys

import torch
from torch import nn
import torch.nn.functional as F

SIZE, PRIOR = 12, 0.01
grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")).float()


def batch(n=32, rate=0.2):
    images = 0.3 * torch.randn(n, 1, SIZE, SIZE)
    present = (torch.rand(n) < rate).float()
    centre = torch.randint(2, SIZE - 2, (n, 2, 1, 1)).float()
    blob = torch.exp(-(grid - centre).pow(2).sum(1, keepdim=True) / 2.0)
    return images + 1.5 * blob * present.view(-1, 1, 1, 1), present


def focal(logits, target, gamma=2.0):
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (ce * (1 - torch.exp(-ce)) ** gamma).mean() * 10


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        )
        self.presence = nn.Conv2d(16, 1, 1)
        prior_bias = -math.log((1 - PRIOR) / PRIOR)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
                if name == "presence" or "--cured" not in sys.argv:
                    nn.init.constant_(module.bias, prior_bias)

    def forward(self, x):
        return self.presence(self.features(x)).amax(dim=(1, 2, 3))


detector = Detector()
optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3, weight_decay=1e-2)
trace = []
for it in range(260):
    images, present = batch()
    loss = focal(detector(images), present)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    trace.append(loss.item())
print("final loss:", sum(trace[-10:]) / 10)
