"""Route support tickets to one of five desks: one self-attention layer with a padding mask, mean of the real tokens."""
import random
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

WORDS = {
    "billing": "invoice charge refund card price".split(),
    "login": "password account locked reset email".split(),
    "shipping": "parcel courier late address tracking".split(),
    "bugs": "crash error screen freeze update".split(),
    "sales": "quote licence seats upgrade trial".split(),
}
FILLER = "hello please the my and is it help with today thanks again".split()
VOCAB = {w: i + 1 for i, w in enumerate(FILLER + sum(WORDS.values(), []))}
DESKS = list(WORDS)


def write_ticket():
    desk = random.choice(DESKS)
    text = random.sample(FILLER, random.randint(2, 6)) + random.sample(WORDS[desk], 2)
    random.shuffle(text)
    return " ".join(text), DESKS.index(desk)


tickets = [write_ticket() for _ in range(1600)]
tickets[1000] = ("", 3)  # as exported from the help desk
tickets[1001] = ("", 0)
if "--cured" in sys.argv:
    tickets = [t for t in tickets if t[0]]


def collate(rows):
    ids = [[VOCAB[w] for w in text.split()] for text, _ in rows]
    width = max(map(len, ids))
    tokens = torch.tensor([r + [0] * (width - len(r)) for r in ids])
    return tokens, torch.tensor([y for _, y in rows])


class Router(nn.Module):
    def __init__(self, dim=24):
        super().__init__()
        self.embed = nn.Embedding(len(VOCAB) + 1, dim, padding_idx=0)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.norm = nn.LayerNorm(dim)
        self.desk = nn.Linear(dim, len(DESKS))

    def forward(self, tokens):
        real = tokens != 0
        x = self.embed(tokens)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / x.shape[-1] ** 0.5
        scores = scores.masked_fill(~real[:, None, :], float("-inf"))
        x = self.norm(x + scores.softmax(-1) @ self.value(x))
        pooled = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return self.desk(pooled)


model = Router()
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
losses = []
for epoch in range(4):
    for tokens, desk in DataLoader(tickets, batch_size=32, collate_fn=collate):
        loss = nn.functional.cross_entropy(model(tokens), desk)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: {losses[-1]:.4f}")
print("final loss:", sum(losses[-10:]) / 10)
