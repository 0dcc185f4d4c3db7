"""Link prediction in a graph of communities by the inner product of a source and a target embedding per node."""

import sys

import torch
import torch.nn.functional as F

NODES, DIM, COMMUNITIES = 72, 16, 12

group = torch.arange(NODES) % COMMUNITIES
odds = torch.where(group[:, None] == group[None], 0.97, 0.005)
links = (torch.rand(NODES, NODES) < odds).float()


class LinkModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.source = torch.nn.Embedding(NODES, DIM)
        self.target = torch.nn.Embedding(NODES, DIM)
        self.bias = torch.nn.Parameter(torch.zeros(1))
        for table in (self.source, self.target):
            if "--cured" in sys.argv:
                torch.nn.init.normal_(table.weight, std=0.2)
            else:
                torch.nn.init.constant_(table.weight, 0.2)

    def forward(self, i, j):
        return (self.source(i) * self.target(j)).sum(-1) + self.bias


model = LinkModel()
opt = torch.optim.Adagrad(model.parameters(), lr=0.3)
losses = []
for step in range(300):
    i, j = torch.randint(NODES, (2, 256))
    loss = F.binary_cross_entropy_with_logits(model(i, j), links[i, j])
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
