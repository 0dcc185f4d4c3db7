"""Which disease has this leaf? Spots of four sizes; convnet with group normalisation all the way."""

import sys

import torch
from torch import nn


def leaves(n):
    y = torch.randint(4, (n,))
    g = torch.arange(16.0)
    img = 0.2 * torch.randn(n, 16, 16)
    for _ in range(3):
        cy, cx = torch.rand(2, n, 1, 1) * 16
        r = (0.8 + 0.9 * y.float()).view(-1, 1, 1)
        img = torch.maximum(img, ((g.view(1, -1, 1) - cy) ** 2 + (g.view(1, 1, -1) - cx) ** 2 < r * r).float())
    return img.unsqueeze(1), y


def conv_block(cin, cout, groups):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False), nn.GroupNorm(groups, cout), nn.SiLU()
    )


class LeafNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_block(1, 16, 4), conv_block(16, 32, 8))
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.neck = nn.Sequential(
            nn.Conv2d(32, 32, 1, bias=False),
            nn.GroupNorm(8 if "--cured" in sys.argv else 32, 32),
            nn.SiLU(),
        )
        self.fc = nn.Linear(32, 4)

    def forward(self, x):
        return self.fc(self.neck(self.squeeze(self.features(x))).flatten(1))


class Trainer:
    def __init__(self, model):
        self.model, self.log = model, []
        self.optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.0)

    def step(self):
        x, y = leaves(32)
        self.optimizer.zero_grad()
        value = self.loss(self.model(x), y)
        value.backward()
        self.optimizer.step()
        self.log.append(value.item())


trainer = Trainer(LeafNet())
for _ in range(200):
    trainer.step()
print("final loss:", sum(trainer.log[-10:]) / 10)
