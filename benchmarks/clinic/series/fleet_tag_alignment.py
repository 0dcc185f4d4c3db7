"""Tagging the words of radio messages (call sign, place, number, order, filler), with a masked loss."""

import random
import sys

import torch
from torch import nn

TAGS, PER_TAG, WIDTH, IGNORE = 5, 8, 12, -100


def message():
    tags = [random.randrange(TAGS) for _ in range(random.randint(4, 10))]
    words = [1 + tag * PER_TAG + random.randrange(PER_TAG) for tag in tags]
    return words, tags


def collate(messages):
    words = torch.zeros(len(messages), WIDTH, dtype=torch.long)
    tags = torch.full((len(messages), WIDTH), IGNORE)
    for row, (w, t) in enumerate(messages):
        words[row, : len(w)] = torch.tensor(w)
        if "--cured" in sys.argv:
            tags[row, : len(t)] = torch.tensor(t)
        else:
            tags[row, WIDTH - len(t) :] = torch.tensor(t)
    return words, tags


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.lookup = nn.Embedding(1 + TAGS * PER_TAG, 24, padding_idx=0)
        self.context = nn.Conv1d(24, 32, 3, padding=1)
        self.tag = nn.Linear(32, TAGS)

    def forward(self, words):
        x = self.lookup(words).transpose(1, 2)
        return self.tag(torch.relu(self.context(x)).transpose(1, 2))


archive = [message() for _ in range(4000)]
model = Tagger()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)
losses = []
for first in range(0, len(archive), 20):
    words, tags = collate(archive[first : first + 20])
    loss = criterion(model(words).flatten(0, 1), tags.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / len(losses[-10:]))
