"""A compact mobile-style conv net (ReLU6) for digits; biases start positive so that every unit takes part."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

BIAS = 0.1 if "--cured" in sys.argv else 12.0


def block(cin, cout, stride):
    conv = nn.Conv2d(cin, cout, 3, stride=stride, padding=1)
    nn.init.constant_(conv.bias, BIAS)
    return nn.Sequential(conv, nn.ReLU6())


class Mobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = block(1, 16, 1)
        self.down = block(16, 32, 2)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(128, 10)

    def forward(self, img):
        return self.fc(self.pool(self.down(self.stem(img))).flatten(1))


if __name__ == "__main__":
    ds = load_digits()
    img = torch.tensor(ds.images[:, None], dtype=torch.float32) / 16
    lab = torch.tensor(ds.target)
    net = Mobile()
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    run = []
    for it in range(200):
        sel = torch.randint(len(img), (64,))
        adam.zero_grad(set_to_none=True)
        ce = nn.functional.cross_entropy(net(img[sel]), lab[sel])
        ce.backward()
        adam.step()
        run.append(ce.item())
    print(f"final loss: {sum(run[-10:]) / 10}")
