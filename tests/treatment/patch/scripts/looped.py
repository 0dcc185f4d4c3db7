import argparse

import torch
import torch.nn.functional as F
from torch import nn

p = argparse.ArgumentParser()
p.add_argument("--depth", type=int, default=5)
p.add_argument("--lr", type=float, default=0.05, help="learning rate")
args = p.parse_args()


class Stack(nn.Module):
    def __init__(self, depth, width=12):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.readout = nn.Linear(width, 4)

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.readout(x)


model = Stack(args.depth)
opt = torch.optim.SGD([q for q in model.parameters() if q.requires_grad], lr=args.lr, weight_decay=1e-4)
sched = torch.optim.lr_scheduler.StepLR(opt, 5)
for step in range(20):
    x = torch.randn(30, 12)
    loss = F.cross_entropy(model(x), x.argmax(1) % 4)
    opt.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    sched.step()
