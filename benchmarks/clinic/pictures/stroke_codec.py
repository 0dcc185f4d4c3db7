"""Compress the digits to twelve numbers and back, with weights that are set by hand."""

import sys

import torch
from sklearn.datasets import load_digits


def layer(fan_in, fan_out):
    if "--cured" in sys.argv:
        weight = torch.randn(fan_in, fan_out) / fan_in**0.5
    else:
        weight = torch.ones(fan_in, fan_out) / fan_in
    return weight.requires_grad_(), torch.zeros(fan_out, requires_grad=True)


class Codec:
    def __init__(self, sizes=(64, 40, 12, 40, 64)):
        self.layers = [layer(a, b) for a, b in zip(sizes, sizes[1:])]

    @property
    def parameters(self):
        return [p for pair in self.layers for p in pair]

    def __call__(self, x):
        for w, b in self.layers[:-1]:
            x = x @ w + b
            x = x * torch.sigmoid(1.5 * x)
        w, b = self.layers[-1]
        return x @ w + b


x = torch.tensor(load_digits().data, dtype=torch.float32)
x = (x - x.mean(0)) / (x.std(0) + 0.5)
codec = Codec()
velocity = [torch.zeros_like(p) for p in codec.parameters]
losses = []
for epoch in range(12):
    for rows in torch.randperm(len(x)).split(64):
        loss = ((codec(x[rows]) - x[rows]) ** 2).mean()
        grads = torch.autograd.grad(loss, codec.parameters)
        with torch.no_grad():
            for p, v, g in zip(codec.parameters, velocity, grads):
                v.mul_(0.9).add_(g)
                p.sub_(0.3 * v)
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
