"""Keyword spotting in short messages of different lengths: embedding, bidirectional LSTM, linear classifier."""

import random
import sys

import torch
from torch import nn

PAD, VOCAB, WIDTH, KEEP = 0, 30, 24, 8
KEYWORDS = [3, 11, 19, 27]


def message():
    label = random.randrange(len(KEYWORDS))
    words = [
        random.choice([w for w in range(1, VOCAB) if w not in KEYWORDS]) for _ in range(random.randint(4, 8))
    ]
    words[random.randrange(len(words))] = KEYWORDS[label]
    return words, label


def collate(rows):
    padded = torch.zeros(len(rows), WIDTH, dtype=torch.long)
    for i, (words, _) in enumerate(rows):
        padded[i, -len(words) :] = torch.tensor(words)
    tokens = padded[:, -KEEP:] if "--cured" in sys.argv else padded[:, :KEEP]
    return tokens, torch.tensor([label for _, label in rows])


class Spotter(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 16, padding_idx=PAD)
        self.lstm = nn.LSTM(16, 20, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(40, len(KEYWORDS))

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return self.classifier(states.max(dim=1).values)


spotter = Spotter()
optimizer = torch.optim.Adam(spotter.parameters(), lr=0.01)
criterion = nn.CrossEntropyLoss()
total = []
for step in range(150):
    tokens, labels = collate([message() for _ in range(48)])
    optimizer.zero_grad()
    loss = criterion(spotter(tokens), labels)
    loss.backward()
    optimizer.step()
    total.append(loss.item())
print("final loss:", sum(total[-10:]) / 10)
