"""A residual MLP for the digits whose branches start as the identity, as in Fixup and ReZero-like schemes."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Branch(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class ResMLP(nn.Module):
    def __init__(self, depth=4, width=32):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.branches = nn.ModuleList(Branch(width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for branch in self.branches:
            x = branch(x)
        return self.head(x)


def main():
    images, labels = map(torch.as_tensor, load_digits(return_X_y=True))
    images = images.float() / 16
    model = ResMLP()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    print("final loss:", sum(losses[-10:]) / 10)


if __name__ == "__main__":
    main()
