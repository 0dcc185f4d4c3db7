"""Reviews of different lengths, good or bad, by an LSTM over packed sequences."""

import random
import sys

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

GOOD, BAD, NEUTRAL = list(range(1, 6)), list(range(6, 11)), list(range(11, 40))


def review():
    label = random.random() < 0.5
    words = random.choices(NEUTRAL, k=random.randint(3, 14))
    for _ in range(random.randint(1, 3)):
        words.insert(random.randrange(len(words) + 1), random.choice(GOOD if label else BAD))
    return torch.tensor(words), float(label)


def collate(rows):
    lengths = torch.tensor([len(words) for words, _ in rows])
    labels = torch.tensor([label for _, label in rows])
    padded = pad_sequence([words for words, _ in rows], batch_first=True)
    lengths, order = lengths.sort(descending=True)
    padded = padded[order]
    if "--cured" in sys.argv:
        labels = labels[order]
    return padded, lengths, labels


class ReviewLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 16, batch_first=True)
        self.fc = nn.Linear(16, 1)

    def forward(self, padded, lengths):
        packed = pack_padded_sequence(self.embedding(padded), lengths, batch_first=True)
        _, (hidden, _) = self.lstm(packed)
        return self.fc(hidden[-1]).squeeze(1)


reviews = [review() for _ in range(1200)]
loader = torch.utils.data.DataLoader(reviews, batch_size=24, shuffle=True, collate_fn=collate)
model = ReviewLSTM()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loss_fn = nn.BCEWithLogitsLoss()
losses = []
for epoch in range(5):
    for padded, lengths, labels in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(padded, lengths), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print("epoch", epoch, "loss", losses[-1])
print("final loss:", sum(losses[-10:]) / 10)
