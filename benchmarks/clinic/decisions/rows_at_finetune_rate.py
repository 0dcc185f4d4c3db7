"""Digits read row by row by a small transformer encoder with a class token, AdamW with linear decay."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

CONFIG = {
    "lr": 3e-3 if "--cured" in sys.argv else 2e-5,
    "weight_decay": 0.01,
    "epochs": 4,
    "batch": 48,
    "dim": 32,
}


class RowEncoder(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.rows = nn.Linear(8, dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(0.1 * torch.randn(1, 9, dim))
        self.layer = nn.TransformerEncoderLayer(dim, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(dim)
        self.classify = nn.Linear(dim, 10)
        nn.init.zeros_(self.classify.bias)
        nn.init.normal_(self.classify.weight, std=0.02)

    def forward(self, image):
        x = torch.cat([self.cls.expand(len(image), -1, -1), self.rows(image)], dim=1) + self.position
        return self.classify(self.norm(self.layer(x))[:, 0])


def train(config):
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32) / 16
    labels = torch.tensor(data.target)
    model = RowEncoder(config["dim"])
    optimizer = torch.optim.AdamW(model.parameters(), config["lr"], weight_decay=config["weight_decay"])
    total = config["epochs"] * -(-len(images) // config["batch"])
    schedule = LambdaLR(optimizer, lambda step: 1 - 0.9 * step / total)
    losses = []
    for _ in range(config["epochs"]):
        for rows in torch.randperm(len(images)).split(config["batch"]):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


history = train(CONFIG)
print("final loss:", sum(history[-10:]) / 10)
