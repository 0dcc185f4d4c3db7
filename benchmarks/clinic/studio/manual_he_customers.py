"""Customer segments from twenty survey answers, with layers of my own."""

import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import make_classification
from torch import nn

CURED = "--cured" in sys.argv


def he(fan_in, fan_out):
    w = torch.randn(fan_out, fan_in)
    scale = math.sqrt(2.0 / fan_in) if CURED else 2.0 / fan_in
    return nn.Parameter(w * scale)


class Dense(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.w = he(fan_in, fan_out)
        self.b = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x):
        return x @ self.w.t() + self.b


class Segmenter(nn.Module):
    def __init__(self, n_in, n_out, width=64, depth=6):
        super().__init__()
        self.inp = Dense(n_in, width)
        self.hidden = nn.ModuleList([Dense(width, width) for _ in range(depth)])
        self.out = Dense(width, n_out)

    def forward(self, x):
        x = F.relu(self.inp(x))
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.out(x)


def train():
    X, y = make_classification(
        2000, 20, n_informative=8, n_classes=4, n_clusters_per_class=1, class_sep=1.5
    )
    X = torch.from_numpy((X - X.mean(0)) / X.std(0)).float()
    y = torch.from_numpy(y)
    model = Segmenter(20, 4)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    losses = []
    for step in range(250):
        idx = torch.from_numpy(np.random.randint(0, len(X), 50))
        loss = F.cross_entropy(model(X[idx]), y[idx])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        losses.append(float(loss.detach()))
        if step % 50 == 0:
            print(step, losses[-1])
    return np.mean(losses[-10:])


print("final loss:", train())
