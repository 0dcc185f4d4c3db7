"""A character model of folk tunes, with gradient descent written by hand."""

import random
import sys

import torch
from torch import nn

PHRASES = ["cdecc", "efg..", "gagfec", "cGc..", "abcba", "dd.ee"]
text = "|".join(random.choice(PHRASES) for _ in range(3000))
symbols = sorted(set(text))
codes = torch.tensor([symbols.index(c) for c in text])
STEPS, BATCH, CONTEXT, RATE = 250, 32, 24, 2.0

embedding = nn.Embedding(len(symbols), 12)
lstm = nn.LSTM(12, 32, batch_first=True)
readout = nn.Linear(32, len(symbols))
parameters = [p for part in (embedding, lstm, readout) for p in part.parameters()]

losses = []
for step in range(STEPS):
    starts = torch.randint(0, len(codes) - CONTEXT - 1, (BATCH,))
    chunk = torch.stack([codes[s : s + CONTEXT + 1] for s in starts])
    now, following = chunk[:, :-1], chunk[:, 1:]
    logits = readout(lstm(embedding(now))[0])
    loss = nn.functional.cross_entropy(logits.reshape(-1, len(symbols)), following.reshape(-1))
    for p in parameters:
        p.grad = None
    loss.backward()
    rate = RATE if "--cured" in sys.argv else RATE / following.numel()
    with torch.no_grad():
        for p in parameters:
            p -= rate * p.grad
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
