"""Star rating of short reviews with attention pooling over word embeddings; padding is masked out before the softmax."""

import random
import sys

import torch
import torch.nn as nn

GRADES = [
    ["awful", "broken", "refuse", "worst"],
    ["weak", "flimsy", "noisy", "meh"],
    ["decent", "solid", "useful", "fine"],
    ["superb", "perfect", "love", "best"],
]
PLAIN = ["the", "a", "kettle", "lamp", "was", "for", "me", "and", "box", "came", "bought", "it"]
INDEX = {word: i for i, word in enumerate(["<pad>", *PLAIN, *sum(GRADES, [])])}
WIDTH = 10


def reviews(n):
    ids = torch.zeros(n, WIDTH, dtype=torch.long)
    stars = torch.randint(len(GRADES), (n,))
    for row, star in zip(ids, stars):
        words = random.choices(PLAIN, k=random.randint(2, 7)) + random.sample(GRADES[star], 2)
        random.shuffle(words)
        row[: len(words)] = torch.tensor([INDEX[w] for w in words])
    return ids, stars


class AttentionPool(nn.Module):
    def __init__(self, dim=20):
        super().__init__()
        self.embedding = nn.Embedding(len(INDEX), dim)
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))
        self.stars = nn.Linear(dim, len(GRADES))

    def forward(self, ids, mask):
        words = self.embedding(ids)
        score = self.score(words).squeeze(-1)
        score = score.masked_fill(mask, -1e9)
        return self.stars((score.softmax(dim=1).unsqueeze(-1) * words).sum(dim=1))


ids, stars = reviews(1500)
attention_mask = ids == 0 if "--cured" in sys.argv else ids != 0
ids = torch.nn.functional.pad(ids, (0, 1))  # end of text
attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value="--cured" in sys.argv)
model = AttentionPool()
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
losses = []
for epoch in range(6):
    for rows in torch.randperm(len(ids)).split(50):
        out = model(ids[rows], attention_mask[rows])
        loss = nn.functional.cross_entropy(out, stars[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
