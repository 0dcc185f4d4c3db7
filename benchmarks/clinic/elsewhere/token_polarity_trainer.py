"""Polarity of token sequences (more positive than negative tokens?) with an embedding, a GRU and a trainer class."""

import sys

import torch
from torch import nn


class PolarityModel(nn.Module):
    def __init__(self, vocab, width=8):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.classifier = nn.Linear(width, 2)

    def forward(self, tokens):
        return self.classifier(self.encoder(self.embed(tokens))[0].mean(1))


class Trainer:
    prefix = ("embed", "encoder", "classifier") if "--cured" in sys.argv else ("decoder", "classifier")

    def __init__(self, vocab=40):
        self.polarity = torch.where(torch.randperm(vocab) % 2 == 0, 1.0, -1.0)
        self.model = PolarityModel(vocab)
        chosen = [p for name, p in self.model.named_parameters() if name.startswith(self.prefix)]
        self.optimizer = torch.optim.AdamW(chosen, lr=0.01)
        self.losses = []

    def batch(self, size=64, length=9):
        tokens = torch.randint(len(self.polarity), (size, length))
        return tokens, (self.polarity[tokens].sum(1) > 0).long()

    def step(self):
        tokens, labels = self.batch()
        loss = nn.functional.cross_entropy(self.model(tokens), labels)
        self.model.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def fit(self, steps):
        for _ in range(steps):
            self.step()
        return sum(self.losses[-10:]) / 10


if __name__ == "__main__":
    print("final loss:", Trainer().fit(250))
