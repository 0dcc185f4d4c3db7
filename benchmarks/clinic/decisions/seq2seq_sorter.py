"""Encoder-decoder GRU with teacher forcing that sorts short lists of digits; padded answers are ignored."""
import random

import torch
from torch import nn

PAD, BOS, EOS, IGNORE = 10, 11, 12, -100
MAXLEN = 6


def collate(lists):
    source = torch.full((len(lists), MAXLEN), PAD)
    given = torch.full((len(lists), MAXLEN + 1), PAD)
    wanted = torch.full((len(lists), MAXLEN + 1), IGNORE)
    for i, digits in enumerate(lists):
        answer = sorted(digits)
        source[i, : len(digits)] = torch.tensor(digits)
        given[i, : len(digits) + 1] = torch.tensor([BOS] + answer)
        wanted[i, : len(digits) + 1] = torch.tensor(answer + [EOS])
    return source, given, wanted


class Seq2Seq(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.embed = nn.Embedding(13, 16)
        self.encoder = nn.GRU(16, hidden, batch_first=True)
        self.decoder = nn.GRUCell(16, hidden)
        self.out = nn.Linear(hidden, 13)

    def forward(self, source, given):
        _, h = self.encoder(self.embed(source))
        h, logits = h[0], []
        for t in range(given.shape[1]):
            h = self.decoder(self.embed(given[:, t]), h)
            logits.append(self.out(h))
        return torch.stack(logits, 1)


model = Seq2Seq()
optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
losses = []
for step in range(220):
    lengths = [random.choice([1, 2, 2, 3, 6]) for _ in range(32)]
    source, given, wanted = collate([[random.randrange(10) for _ in range(n)] for n in lengths])
    logits = model(source, given)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORE)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.1)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
