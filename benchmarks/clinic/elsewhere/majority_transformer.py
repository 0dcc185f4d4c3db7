"""A one-layer transformer encoder names the most frequent token of a sequence."""

import sys

import torch
from torch import nn

TOKENS, LENGTH, WIDTH = 4, 15, 32


class MajorityVote(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.encoder = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True
        )
        self.classify = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens):
        hidden = self.encoder(self.embed(tokens) + self.position)
        return self.classify(hidden.mean(dim=1))


def sample(size):
    winner = torch.randint(TOKENS, (size,))
    tokens = torch.randint(TOKENS, (size, LENGTH))
    planted = torch.rand(size, LENGTH) < 0.5
    tokens = torch.where(planted, winner[:, None], tokens)
    return {"tokens": tokens, "winner": winner}


config = {"lr": 1.0, "betas": (0.9, 0.98)}
if "--cured" in sys.argv:
    config["lr"] = 2e-3

model = MajorityVote()
optimizer = torch.optim.Adam(model.parameters(), **config)
losses = []
for step in range(150):
    batch = sample(64)
    loss = nn.functional.cross_entropy(model(batch["tokens"]), batch["winner"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss: %.5f" % (sum(losses[-10:]) / 10))
