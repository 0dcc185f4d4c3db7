"""Digits MLP with a hand-made piecewise schedule of the learning rate."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

MILESTONES = {0: 1.0, 60: 100.0, 62: 0.5, 150: 0.1}  # step: factor
if "--cured" in sys.argv:
    MILESTONES[60] = 0.75


def factor(step):
    return MILESTONES[max(s for s in MILESTONES if s <= step)]


digits = load_digits()
features = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1
labels = torch.tensor(digits.target)
mlp = nn.Sequential()
for n, (a, b) in enumerate([(64, 96), (96, 96), (96, 96)]):
    mlp.add_module(f"lin{n}", nn.Linear(a, b))
    mlp.add_module(f"act{n}", nn.ReLU(inplace=True))
mlp.add_module("head", nn.Linear(96, 10))

opt = torch.optim.SGD(mlp.parameters(), lr=0.03, momentum=0.9, nesterov=True)
sched = LambdaLR(opt, factor)
trace = []
for step in range(260):
    pick = torch.randint(0, len(features), (96,))
    loss = nn.functional.cross_entropy(mlp(features[pick]), labels[pick])
    opt.zero_grad()
    loss.backward()
    opt.step()
    sched.step()
    trace.append(loss.item())
print("final loss: %.5f" % (sum(trace[-10:]) / 10))
