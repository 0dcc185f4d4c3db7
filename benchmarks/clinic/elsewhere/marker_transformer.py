"""A small transformer encoder answers which token stands right after the marker in a sequence."""

import sys

import torch
from torch import nn

TOKENS, LENGTH, WIDTH, MARKER = 8, 10, 32, 8


class AfterMarker(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(TOKENS + 1, WIDTH)
        self.before = nn.Embedding(TOKENS + 1, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, nhead=2, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.classify = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens):
        hidden = self.embed(tokens)
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:] + self.before(tokens[:, :-1])], dim=1)
        return self.classify(self.encoder(hidden).mean(dim=1))


def sample(size):
    tokens = torch.randint(TOKENS, (size, LENGTH))
    place = torch.randint(LENGTH - 1, (size, 1))
    tokens.scatter_(1, place, MARKER)
    return {"tokens": tokens, "answer": tokens.gather(1, place + 1)[:, 0]}


config = {"lr": 1.0, "betas": (0.9, 0.98)}
if "--cured" in sys.argv:
    config["lr"] = 2e-3

model = AfterMarker()
optimizer = torch.optim.Adam(model.parameters(), **config)
losses = []
for step in range(200):
    batch = sample(64)
    loss = nn.functional.cross_entropy(model(batch["tokens"]), batch["answer"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss: %.5f" % (sum(losses[-10:]) / 10))
