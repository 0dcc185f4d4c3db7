"""Inner or outer ring: a ReLU network trained with RAdam."""

import sys

import torch
from sklearn.datasets import make_circles
from torch import nn

xy, ring = make_circles(500, noise=0.05, factor=0.5)
xy, ring = torch.tensor(xy).float(), torch.tensor(ring).long()

net = nn.Sequential(nn.Linear(2, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 2))
opt = torch.optim.RAdam(net.parameters(), lr=0.02)
ce = nn.CrossEntropyLoss()

if "--cured" in sys.argv:
    order = (opt.zero_grad, torch.Tensor.backward, opt.step)
else:
    order = (torch.Tensor.backward, opt.zero_grad, opt.step)

losses = []
for epoch in range(160):
    loss = ce(net(xy), ring)
    for action in order:
        action(loss) if action is torch.Tensor.backward else action()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
