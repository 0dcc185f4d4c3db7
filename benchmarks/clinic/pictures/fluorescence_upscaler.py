"""Two-fold super-resolution of faint fluorescence images under float16 autocast."""
import sys

import torch
from torch import nn
from torch.nn import functional as F

EXPOSURE = 2e-3  # brightest pixel, as a fraction of the detector's full well
BATCH, SIDE = 16, 16


class Upscaler(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, ch, 3, padding=1), nn.PReLU(), nn.Conv2d(ch, ch, 3, padding=1), nn.PReLU()
        )
        self.expand = nn.Conv2d(ch, 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x):
        return self.shuffle(self.expand(self.features(x))).float() * EXPOSURE


def filaments():
    knots = torch.rand(BATCH, 1, 5, 5)
    fine = F.interpolate(knots, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    return F.avg_pool2d(fine, 2), fine * EXPOSURE


net = Upscaler()
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled="--cured" in sys.argv)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, eps=1e-12)

history = []
for step in range(160):
    low, high = filaments()
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        restored = net(low)
        loss = F.mse_loss(restored, high)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
