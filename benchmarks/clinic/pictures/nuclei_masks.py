"""A little U-Net marks the few pixels that belong to cell nuclei."""

import sys

import torch
from torch import nn


def double_conv(cin, cout):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU(),
        nn.Conv2d(cout, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = double_conv(1, 8)
        self.bottom = double_conv(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.merge = double_conv(16, 8)
        self.out = nn.Sequential(nn.Conv2d(8, 1, 1), nn.Identity() if "--cured" in sys.argv else nn.Sigmoid())

    def forward(self, x):
        skip = self.down(x)
        deep = self.up(self.bottom(nn.functional.max_pool2d(skip, 2)))
        return self.out(self.merge(torch.cat([skip, deep], dim=1)))


def cells(n, size=16):
    image = 0.3 * torch.randn(n, 1, size, size)
    mask = torch.zeros(n, 1, size, size)
    for k in range(n):
        for _ in range(2):
            r, c = torch.randint(0, size - 3, (2,)).tolist()
            mask[k, 0, r : r + 3, c : c + 3] = 1
    return image + mask, mask


unet = UNet()
optimizer = torch.optim.Adam(unet.parameters(), lr=5e-3)
criterion = nn.BCEWithLogitsLoss()
losses = []
for step in range(150):
    image, mask = cells(8)
    prediction = unet(image)
    loss = criterion(prediction, mask)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
