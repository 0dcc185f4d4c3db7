"""Squares, crosses and rings: a convnet on bare tensors, initialised by hand."""

import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn import Module, Parameter, ParameterList

rng = np.random.RandomState(np.random.randint(1 << 30))


def draw(kind):
    img = rng.normal(0, 0.25, (14, 14))
    r, c = rng.randint(1, 7, 2)
    if kind == 0:
        img[r : r + 6, c : c + 6] += 1
    elif kind == 1:
        img[r + 2 : r + 4, c : c + 6] += 1
        img[r : r + 6, c + 2 : c + 4] += 1
    else:
        img[r : r + 6, c : c + 6] += 1
        img[r + 1 : r + 5, c + 1 : c + 5] -= 1
    return img


labels = rng.randint(0, 3, 900)
images = torch.tensor(np.stack([draw(k) for k in labels]), dtype=torch.float32)[:, None]
labels = torch.tensor(labels)


class ShapeNet(Module):
    WIDTHS = [1] + [8] * 9

    def __init__(self):
        super().__init__()
        self.kernels = ParameterList()
        for cin, cout in zip(self.WIDTHS[:-1], self.WIDTHS[1:]):
            fan_in = cin * 5 * 5 if "--cured" in sys.argv else cin
            self.kernels.append(Parameter(torch.randn(cout, cin, 5, 5) * math.sqrt(2.0 / fan_in)))
        self.readout = Parameter(torch.randn(3, 8) * math.sqrt(1.0 / 8))

    def forward(self, x):
        for i, k in enumerate(self.kernels):
            x = F.leaky_relu(F.conv2d(x, k, padding=2), 0.1)
            if i == 1:
                x = F.max_pool2d(x, 2)
        return F.linear(x.mean((2, 3)), self.readout)


model = ShapeNet()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
running = []
for epoch in range(8):
    order = torch.randperm(len(images))
    for i in range(0, len(images), 36):
        idx = order[i : i + 36]
        loss = F.cross_entropy(model(images[idx]), labels[idx])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        running.append(loss.item())
print("final loss:", float(np.mean(running[-10:])))
