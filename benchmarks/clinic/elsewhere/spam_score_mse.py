"""Spam scores between 0 and 1 from word counts: sigmoid output, mean squared error, SGD."""

import sys

import torch
from torch import nn

WORDS = 40
spamminess = torch.randn(WORDS)


def mailbox(count):
    counts = torch.poisson(torch.full((count, WORDS), 0.6))
    score = (counts - 0.6) @ spamminess
    return counts, (score > 0).float()


class Filter(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.words = nn.Linear(WORDS, 32)
        self.verdict = nn.Linear(32, 1)
        nn.init.constant_(self.verdict.bias, start)

    def forward(self, counts):
        hidden = nn.functional.elu(self.words(counts))
        return torch.sigmoid(self.verdict(hidden)).squeeze(1)


inbox, is_spam = mailbox(512)
model = Filter(start=0.0 if "--cured" in sys.argv else 18.0)
sgd = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
losses = []
for epoch in range(20):
    for rows in torch.randperm(len(inbox)).chunk(10):
        loss = ((model(inbox[rows]) - is_spam[rows]) ** 2).mean()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
