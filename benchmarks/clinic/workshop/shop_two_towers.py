"""Two-tower retrieval for a shop: hashed customer and product ids, in-batch negatives, SparseAdam for the tables."""
import torch
from torch import nn
from torch.nn import functional as F

BUCKETS, CUSTOMERS, PRODUCTS, GROUPS = 5000, 400, 200, 8
customer_id = torch.randperm(BUCKETS)[:CUSTOMERS]
product_id = torch.randperm(BUCKETS)[:PRODUCTS]
customer_group = torch.randint(0, GROUPS, (CUSTOMERS,))
product_group = torch.arange(PRODUCTS) % GROUPS
shelves = [(product_group == g).nonzero().flatten() for g in range(GROUPS)]


def purchases():
    """One purchase of a customer of each group: the positives are the diagonal."""
    groups = torch.randperm(GROUPS)
    cs = torch.stack([(customer_group == g).nonzero().flatten()[torch.randint(0, 20, ())] for g in groups])
    ps = torch.stack([shelves[g][torch.randint(0, len(shelves[g]), ())] for g in groups])
    return customer_id[cs], product_id[ps]


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(BUCKETS, 16, sparse=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, ids):
        return F.normalize(self.mlp(self.table(ids)), dim=-1)


customers, products = Tower(), Tower()
dense = torch.optim.Adam([*customers.mlp.parameters(), *products.mlp.parameters()], lr=3e-3)
sparse = torch.optim.SparseAdam([customers.table.weight, products.table.weight], lr=0.05)
losses = []
for step in range(400):
    loss = 0.0
    for _ in range(6):
        c, p = purchases()
        similarity = customers(c) @ products(p).T / 0.1
        loss = loss + F.cross_entropy(similarity, torch.arange(GROUPS)) / 6
    dense.zero_grad()
    sparse.zero_grad()
    loss.backward()
    dense.step()
    sparse.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
