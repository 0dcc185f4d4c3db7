"""A transformer looks up the value that belongs to a queried key; AdamW with a long warm-up and cosine decay."""

import math

import torch
from torch import nn

KEYS, PAIRS, WIDTH, STEPS, WARMUP = 6, 4, 32, 350, 180


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.key = nn.Embedding(KEYS, WIDTH)
        self.value = nn.Embedding(KEYS, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.readout = nn.Linear(WIDTH, KEYS)

    def forward(self, keys, values, query):
        memory = self.key(keys) + self.value(values)
        found, _ = self.attention(self.key(query)[:, None], memory, memory)
        return self.readout(self.norm(found[:, 0]))


def rate(step):
    if step < WARMUP:
        return (step + 1) ** 2 / WARMUP**2
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


model = Lookup()
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
losses = []
for step in range(STEPS):
    keys = torch.rand(64, KEYS).argsort(dim=1)[:, :PAIRS]
    values = torch.randint(KEYS, (64, PAIRS))
    pick = torch.randint(PAIRS, (64, 1))
    logits = model(keys, values, keys.gather(1, pick)[:, 0])
    loss = nn.functional.cross_entropy(logits, values.gather(1, pick)[:, 0])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
