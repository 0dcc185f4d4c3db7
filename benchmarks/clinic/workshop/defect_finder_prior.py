"""Rare scratches on metal plates, 12x12 pictures, oversampled to a quarter. Biases with a prior of 1% as in RetinaNet."""
import math
import sys

import torch
from torch import nn

PRIOR = 0.01
BIAS = -math.log((1 - PRIOR) / PRIOR)


def plates(n):
    pictures = 0.3 * torch.randn(n, 1, 12, 12)
    scratched = torch.rand(n) < 0.25
    for k in scratched.nonzero().flatten().tolist():
        row, col = torch.randint(0, 7, (2,)).tolist()
        for d in range(5):
            pictures[k, 0, row + d, col + d] += 1.5
    return pictures, scratched.float()


class DefectFinder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1, stride=2)
        self.head = nn.Linear(16 * 9, 1)
        self.reset()

    def reset(self):
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if "--cured" in sys.argv and name != "head":
                    nn.init.zeros_(module.bias)
                else:
                    nn.init.constant_(module.bias, BIAS)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = conv(x).relu()
        return self.head(x.flatten(1))[:, 0]


finder = DefectFinder()
optimizer = torch.optim.Adam(finder.parameters(), lr=2e-3)
bce = nn.BCEWithLogitsLoss()
history = []
for step in range(300):
    x, y = plates(32)
    loss = bce(finder(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
print("final loss:", sum(history[-20:]) / 20)
