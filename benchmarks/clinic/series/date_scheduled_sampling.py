"""Dates written out are turned into digits: encoder-decoder with attention, fed its own answers more and more often."""

import random

import torch
from torch import nn

SIGNS, LENGTH, DIM = 10, 6, 40
START = SIGNS
spelling = torch.randperm(SIGNS)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(SIGNS, DIM)
        self.gru = nn.GRU(DIM, DIM // 2, batch_first=True, bidirectional=True)

    def forward(self, source):
        return self.gru(self.embed(source))[0]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(SIGNS + 1, DIM)
        self.cell = nn.GRUCell(2 * DIM, DIM)
        self.place = nn.Embedding(LENGTH, DIM)
        self.out = nn.Linear(2 * DIM, SIGNS)

    def forward(self, memory, target, own_share):
        memory = memory + self.place.weight
        h = memory.mean(1)
        token = torch.full((len(target),), START)
        logits = []
        for t in range(target.shape[1]):
            query = h + self.place.weight[t]
            attention = (memory @ query[:, :, None] / DIM**0.5).softmax(1)
            context = (attention * memory).sum(1)
            h = self.cell(torch.cat([self.embed(token), context], 1), h)
            logits.append(self.out(torch.cat([h, context], 1)))
            token = logits[-1].argmax(1) if random.random() < own_share else target[:, t]
        return torch.stack(logits, 1)


encoder, decoder = Encoder(), Decoder()
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=6e-3)
losses = []
for step in range(200):
    source = torch.randint(0, SIGNS, (40, LENGTH))
    target = spelling[source]
    logits = decoder(encoder(source), target, own_share=min(0.5, step / 300))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
