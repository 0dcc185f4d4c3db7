"""Ratings with sparse embeddings; most of the catalogue and many of the accounts have no rating yet."""

import torch
from torch import nn

ACCOUNTS, CATALOGUE, ACTIVE, RATED = 2000, 5000, 120, 90


class Recommender(nn.Module):
    def __init__(self, dim=6):
        super().__init__()
        self.account = nn.Embedding(ACCOUNTS, dim, sparse=True)
        self.item = nn.Embedding(CATALOGUE, dim, sparse=True)
        self.account_bias = nn.Embedding(ACCOUNTS, 1, sparse=True)
        self.item_bias = nn.Embedding(CATALOGUE, 1, sparse=True)
        for table in (self.account, self.item):
            nn.init.normal_(table.weight, std=0.1)
        for table in (self.account_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, a, i):
        match = (self.account(a) * self.item(i)).sum(1)
        return 3.0 + match + self.account_bias(a)[:, 0] + self.item_bias(i)[:, 0]


who = torch.randperm(ACCOUNTS)[:ACTIVE]
what = torch.randperm(CATALOGUE)[:RATED]
mood, fame = 0.4 * torch.randn(ACTIVE), 0.6 * torch.randn(RATED)
tastes = torch.randn(ACTIVE, 2) @ torch.randn(2, RATED) * 0.6
ratings = 3.0 + mood[:, None] + fame[None, :] + tastes

model = Recommender()
optimizer = torch.optim.SparseAdam(list(model.parameters()), lr=0.01)
losses = []
for step in range(400):
    r, c = torch.randint(ACTIVE, (256,)), torch.randint(RATED, (256,))
    loss = nn.functional.mse_loss(model(who[r], what[c]), ratings[r, c])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 100 == 0:
        print(f"step {step}: {loss.item():.3f}")
print("final loss:", sum(losses[-10:]) / 10)
