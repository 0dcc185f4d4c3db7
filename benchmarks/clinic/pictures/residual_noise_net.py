"""DnCNN in small: the net is shown a noisy picture and predicts the noise in it."""

import sys

import torch
from torch import nn


def init_weights(m):
    if isinstance(m, nn.Conv2d):
        if "--cured" in sys.argv:
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        else:
            nn.init.normal_(m.weight, mean=0.0, std=0.01)
        nn.init.zeros_(m.bias)


def dncnn(channels=1, features=16, layers=6):
    stack = [nn.Conv2d(channels, features, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(layers - 2):
        stack += [nn.Conv2d(features, features, 3, padding=1), nn.ReLU(inplace=True)]
    stack.append(nn.Conv2d(features, channels, 3, padding=1))
    return nn.Sequential(*stack)


def clean_images(n, size=16):
    coarse = torch.randn(n, 1, 3, 3)
    return nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


net = dncnn()
net.apply(init_weights)
mse = nn.MSELoss()
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.MultiStepLR(opt, milestones=[180], gamma=0.3)

losses = []
for it in range(240):
    clean = clean_images(16)
    noise = torch.randn_like(clean)
    opt.zero_grad()
    loss = mse(net(clean + noise), noise)
    loss.backward()
    opt.step()
    scheduler.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
