"""A net for the digits meets mirrored digits; its weights stay, and low-rank additions learn the difference."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class LoRA(nn.Module):
    def __init__(self, base, rank=8):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + 2.0 * (x @ self.down.T) @ self.up.T


def train(net, images, labels, lr, epochs):
    trainable = [p for p in net.parameters() if p.requires_grad]
    print("training", sum(p.numel() for p in trainable), "numbers")
    optimizer = torch.optim.AdamW(trainable, lr=lr)
    losses = []
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


pixels, labels = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
pixels = (pixels / 16).float()
mirrored = pixels.view(-1, 8, 8).flip(2).flatten(1)

net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
losses = train(net, pixels, labels, 3e-3, 4)
for i in (0, 2, 4):
    net[i] = LoRA(net[i])
losses += train(net, mirrored, labels, 3e-3, 6)
print("final loss:", sum(losses[-10:]) / 10)
