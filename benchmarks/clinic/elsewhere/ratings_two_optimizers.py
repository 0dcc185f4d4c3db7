"""Ratings from user and item embeddings (sparse Adam) and a small tower on top (SGD)."""

import torch
from torch import nn

USERS, ITEMS, RANK = 40, 30, 3
taste, trait = torch.randn(USERS, RANK), torch.randn(ITEMS, RANK)


class Recommender(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.users = nn.Embedding(USERS, width, sparse=True)
        self.items = nn.Embedding(ITEMS, width, sparse=True)
        self.tower = nn.Linear(width, 1)

    def forward(self, user, item):
        return self.tower(self.users(user) * self.items(item)).squeeze(-1)


net = Recommender()
sparse = torch.optim.SparseAdam([net.users.weight, net.items.weight], lr=0.03)
dense = torch.optim.SGD(net.tower.parameters(), lr=0.01, momentum=0.9)

losses = []
for step in range(400):
    user, item = torch.randint(USERS, (256,)), torch.randint(ITEMS, (256,))
    rating = (taste[user] * trait[item]).sum(-1)
    loss = nn.functional.mse_loss(net(user, item), rating)
    sparse.zero_grad()
    dense.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
