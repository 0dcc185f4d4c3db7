"""Next-character model on made-up village names: GRU, probabilities over the alphabet, cross-entropy."""
import random
import sys

import torch
from torch import nn

HEADS = "ash beck cold down east fern glen hazel iver kirk lang mill nor oak pen quern red stan thorn up wid".split()
TAILS = "bury by combe dale ford ham ley minster stead stoke thorpe ton wick worth".split()
ALPHABET = "." + "abcdefghijklmnopqrstuvwxyz"


def names(n):
    words = ["." + random.choice(HEADS) + random.choice(TAILS) + "." for _ in range(n)]
    width = max(map(len, words))
    return torch.tensor([[ALPHABET.index(c) for c in w.ljust(width, ".")] for w in words])


class CharModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(27, 16)
        self.gru = nn.GRU(16, 40, batch_first=True)
        self.letters = nn.Linear(40, 27)

    def forward(self, ids):
        h, _ = self.gru(self.embed(ids))
        scores = self.letters(h)
        return scores if "--cured" in sys.argv else torch.softmax(scores, dim=-1)


model = CharModel()
optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
losses = []
for step in range(140):
    ids = names(24)
    out = model(ids[:, :-1])
    loss = nn.functional.cross_entropy(out.reshape(-1, 27), ids[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
