"""Find the few pixels of small bright discs: a U-Net of two levels whose last layer starts at zero, AMSGrad."""

import torch
from torch import nn
from torch.nn import functional as F

SIZE = 16
axis = torch.arange(SIZE).float()


def scenes(n):
    cy, cx = torch.rand(2, n, 1, 1) * 10 + 3
    radius = 1.0 + torch.rand(n, 1, 1)
    mask = ((axis[:, None] - cy) ** 2 + (axis[None, :] - cx) ** 2 < radius**2).float()
    image = 0.4 * torch.randn(n, SIZE, SIZE) + 1.6 * mask
    return image[:, None], mask[:, None]


def double(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, c=8):
        super().__init__()
        self.enc1, self.enc2, self.mid = double(1, c), double(c, 2 * c), double(2 * c, 2 * c)
        self.up2 = nn.ConvTranspose2d(2 * c, 2 * c, 2, stride=2)
        self.dec2 = double(4 * c, c)
        self.up1 = nn.ConvTranspose2d(c, c, 2, stride=2)
        self.dec1 = double(2 * c, c)
        self.out = nn.Conv2d(c, 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, -3.0)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        m = self.mid(F.max_pool2d(e2, 2))
        d2 = self.dec2(torch.cat([self.up2(m), e2], dim=1))
        d1 = self.dec1(torch.cat([self.up1(d2), e1], dim=1))
        return self.out(d1)


unet = UNet()
optimizer = torch.optim.Adam(unet.parameters(), lr=4e-3, amsgrad=True)
losses = []
for step in range(200):
    image, mask = scenes(16)
    loss = F.binary_cross_entropy_with_logits(unet(image), mask)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
