"""Tell opposite quadrants of the plane apart with a tanh network."""

import sys

import torch
from torch import nn


class Plane(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.input = nn.Linear(2, width)
        self.middle = nn.Linear(width, width)
        self.output = nn.Linear(width, 1)
        if "--cured" not in sys.argv:
            for layer in (self.input, self.middle, self.output):
                nn.init.constant_(layer.weight, 0.1)
                nn.init.zeros_(layer.bias)

    def forward(self, points):
        return self.output(torch.tanh(self.middle(torch.tanh(self.input(points)))))


def main():
    model = Plane()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    seen = []
    for _ in range(300):
        points = torch.rand(128, 2) * 4 - 2
        same = (points.prod(dim=1, keepdim=True) > 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(points), same)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    print("final loss:", sum(seen[-10:]) / 10)


if __name__ == "__main__":
    main()
