"""Upscaling with the pixel range left at 0..255 and the squared error summed over all pixels, as in the first papers."""

import torch
import torch.nn.functional as F
from torch import nn


def landscape(n):
    coarse = torch.rand(n, 1, 4, 4) * 255
    fine = F.interpolate(coarse, size=(16, 16), mode="bicubic", align_corners=True)
    return fine.clamp(0, 255).round()


class SRCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 5, padding=2)
        self.map = nn.Conv2d(16, 12, 1)
        self.rebuild = nn.Conv2d(12, 1, 5, padding=2)

    def forward(self, x):
        x = F.relu(self.patch(x))
        x = F.relu(self.map(x))
        return self.rebuild(x)


model = SRCNN()
optimizer = torch.optim.Adam(
    [
        {"params": model.patch.parameters()},
        {"params": model.map.parameters()},
        {"params": model.rebuild.parameters(), "lr": 1e-3},
    ],
    lr=2e-3,
)
history = []
for i in range(300):
    sharp = landscape(8)
    blurred = F.interpolate(F.avg_pool2d(sharp, 4), scale_factor=4, mode="nearest")
    loss = F.mse_loss(model(blurred), sharp, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
