"""Songs and their written descriptions in one space: a slowly following key encoder and a queue of negatives."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

SPECIES, MELS, FRAMES, WORDS, DIM, QUEUE = 40, 10, 12, 6, 24, 128
voices = torch.randn(SPECIES, MELS, FRAMES)
vocabulary = torch.randint(0, 80, (SPECIES, WORDS))

song = nn.Sequential(nn.Conv1d(MELS, 32, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(160, DIM))
text = nn.Sequential(nn.EmbeddingBag(80, 32), nn.Linear(32, DIM))
text_keys = copy.deepcopy(text)
for p in text_keys.parameters():
    p.requires_grad_(False)

optimizer = torch.optim.AdamW([*song.parameters(), *text.parameters()], lr=3e-3, weight_decay=0.01)
queue = F.normalize(torch.randn(QUEUE, DIM), dim=1)
losses = []
for step in range(250):
    birds = torch.randperm(SPECIES)[:24]
    audio = voices[birds] + 0.4 * torch.randn(24, MELS, FRAMES)
    a, w = F.normalize(song(audio), dim=1), F.normalize(text(vocabulary[birds]), dim=1)
    with torch.no_grad():
        for slow, fast in zip(text_keys.parameters(), text.parameters()):
            slow.lerp_(fast, 0.05)
        keys = F.normalize(text_keys(vocabulary[birds]), dim=1)
    logits = torch.cat([a @ keys.T, a @ queue.T * 0.5], 1) / 0.1
    loss = F.cross_entropy(logits, torch.arange(24)) + F.cross_entropy(w @ a.T / 0.1, torch.arange(24))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    queue = torch.cat([keys, queue])[:QUEUE]
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
