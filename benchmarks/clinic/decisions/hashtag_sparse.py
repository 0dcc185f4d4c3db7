"""Hashtag intent: an EmbeddingBag of 20000 hashed tags with sparse gradients (SparseAdam), a dense head under SGD."""

import random

import torch
from torch import nn

BUCKETS = 20_000
INTENTS = {
    "travel": ["beach", "hostel", "flight", "backpack", "island"],
    "food": ["ramen", "brunch", "vegan", "bakery", "streetfood"],
    "sport": ["marathon", "derby", "gym", "slamdunk", "climbing"],
    "pets": ["puppy", "catlife", "rescue", "hamster", "parrot"],
}
NOISE = [f"day{i}" for i in range(40)]
bucket = {tag: random.randrange(BUCKETS) for tag in NOISE + sum(INTENTS.values(), [])}


def posts(n):
    flat, offsets, intents = [], [], []
    for _ in range(n):
        name = random.choice(list(INTENTS))
        tags = random.sample(INTENTS[name], random.randint(1, 2)) + random.sample(NOISE, random.randint(1, 4))
        offsets.append(len(flat))
        flat += [bucket[t] for t in tags]
        intents.append(list(INTENTS).index(name))
    return torch.tensor(flat), torch.tensor(offsets), torch.tensor(intents)


tags = nn.EmbeddingBag(BUCKETS, 12, mode="mean", sparse=True)
head = nn.Linear(12, len(INTENTS))
optimizers = [
    torch.optim.SparseAdam(tags.parameters(), lr=0.03),
    torch.optim.SGD(head.parameters(), lr=0.2),
]
losses = []
for step in range(250):
    flat, offsets, intent = posts(32)
    loss = nn.functional.cross_entropy(head(tags(flat, offsets)), intent)
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
