"""Siamese network: are two images the same digit? One deep tower, used twice, and a learned comparison."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn


class Siamese(nn.Module):
    def __init__(self, std):
        super().__init__()
        widths = [64, 64, 64, 64, 64, 64, 48]
        self.tower = nn.Sequential()
        for i, (a, b) in enumerate(zip(widths, widths[1:])):
            lin = nn.Linear(a, b)
            nn.init.normal_(lin.weight, std=std or a**-0.5)
            nn.init.zeros_(lin.bias)
            self.tower.add_module(f"lin{i}", lin)
            self.tower.add_module(f"tanh{i}", nn.Tanh())
        self.compare = nn.Linear(48, 1)

    def forward(self, a, b):
        return self.compare((self.tower(a) - self.tower(b)).abs()).flatten()


digits = load_digits()
keep = digits.target < 4
x = torch.tensor(digits.data[keep] / 16 - 0.3, dtype=torch.float32)
y = torch.tensor(digits.target[keep])
net = Siamese(None if "--cured" in sys.argv else 0.01)
opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
history = []
for step in range(350):
    i, j = torch.randint(0, len(x), (2, 96))
    half = torch.arange(48)
    for n in half.tolist():  # half of the pairs are of one digit
        same = (y == y[i[n]]).nonzero().flatten()
        j[n] = same[torch.randint(len(same), (1,))]
    same = (y[i] == y[j]).float()
    loss = nn.functional.binary_cross_entropy_with_logits(net(x[i], x[j]), same)
    opt.zero_grad()
    loss.backward()
    opt.step()
    history.append(loss.item())
print(f"final loss: {sum(history[-10:]) / 10:.4f}")
