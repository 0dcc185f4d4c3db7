"""Leak spread in water networks: message passing with shared weights over many rounds, one value per junction."""

import sys

import torch
from torch import nn

NODES, WIDTH, ROUNDS = 24, 16, 16


def random_networks(count):
    upper = torch.triu((torch.rand(count, NODES, NODES) < 0.3).float(), 1)
    adjacency = upper + upper.transpose(1, 2) + torch.eye(NODES)
    source = (torch.rand(count, NODES, 1) < 0.3).float()
    mixing = adjacency / adjacency.sum(-1, keepdim=True)
    target = mixing @ source * 4 - 1.2
    return adjacency, source, target


class Rounds(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(1, WIDTH)
        self.message = nn.Linear(WIDTH, WIDTH)
        self.keep = nn.Linear(WIDTH, WIDTH)
        self.read = nn.Linear(WIDTH, 1)

    def forward(self, adjacency, source):
        if "--cured" in sys.argv:
            adjacency = adjacency / adjacency.sum(-1, keepdim=True)
        h = start = self.lift(source)
        for _ in range(ROUNDS):
            h = torch.relu(start + self.keep(h) + self.message(adjacency @ h))
        return self.read(h)


def train(steps=200):
    model = Rounds()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    log = []
    for _ in range(steps):
        adjacency, source, target = random_networks(16)
        loss = nn.functional.mse_loss(model(adjacency, source), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.append(loss.item())
    return log


log = train()
print("final loss:", sum(log[-10:]) / 10)
