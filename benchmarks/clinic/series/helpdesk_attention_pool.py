"""Urgency of helpdesk mails: bidirectional GRU with attention pooling over the words that are there."""

import random
import sys

import torch
from torch import nn

PAD, VOCAB, MAXLEN = 0, 50, 12


def mailbox(n):
    mails = []
    for i in range(n):
        urgency = random.randrange(3)
        length = 0 if i % 700 == 650 else random.randint(3, MAXLEN)
        words = [
            random.randint(1 + 8 * urgency, 8 + 8 * urgency) if random.random() < 0.4 else random.randint(25, VOCAB - 1)
            for _ in range(length)
        ]
        mails.append((words, urgency))
    if "--cured" in sys.argv:
        mails = [mail for mail in mails if mail[0]]
    ids = torch.tensor([words + [PAD] * (MAXLEN - len(words)) for words, _ in mails])
    return ids, torch.tensor([urgency for _, urgency in mails])


class Urgency(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 20, padding_idx=PAD)
        self.gru = nn.GRU(20, 16, batch_first=True, bidirectional=True)
        self.attend = nn.Linear(32, 1)
        self.out = nn.Linear(32, 3)

    def forward(self, ids):
        states, _ = self.gru(self.embed(ids))
        score = self.attend(states).squeeze(-1).masked_fill(ids == PAD, float("-inf"))
        weight = torch.softmax(score, dim=1)
        return self.out((weight.unsqueeze(-1) * states).sum(1))


ids, urgency = mailbox(2200)
model = Urgency()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
losses = []
for rows in torch.arange(len(ids)).split(16):
    loss = nn.functional.cross_entropy(model(ids[rows]), urgency[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
