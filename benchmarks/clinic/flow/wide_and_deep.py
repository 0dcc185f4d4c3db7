"""Wide & deep: a deep branch for the image, a linear branch for the metadata that came with it."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class WideAndDeep(nn.Module):
    def __init__(self, cured):
        super().__init__()
        act = nn.Mish if cured else nn.Sigmoid
        mods, width = [], 40
        for i in range(9):
            lin = nn.Linear(64 if i == 0 else width, width)
            if cured:
                nn.init.kaiming_normal_(lin.weight)
            mods += [lin, act()]
        self.deep = nn.Sequential(*mods)
        self.wide = nn.Sequential(nn.Linear(6, 20), nn.ReLU())
        self.join = nn.Linear(width + 20, 10)

    def forward(self, image, meta):
        return self.join(torch.cat([self.deep(image), self.wide(meta)], dim=1))


digits = load_digits()
image = torch.tensor(digits.data, dtype=torch.float32) / 16
label = torch.tensor(digits.target)
net = WideAndDeep("--cured" in sys.argv)
opt = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
curve = []
for step in range(320):
    pick = torch.randint(0, len(image), (80,))
    batch = {"image": image[pick], "meta": torch.randn(80, 6)}  # station, operator, hour, ...
    loss = nn.functional.cross_entropy(net(**batch), label[pick])
    opt.zero_grad()
    loss.backward()
    opt.step()
    curve.append(loss.item())
print(f"final loss: {sum(curve[-10:]) / 10:.4f}")
