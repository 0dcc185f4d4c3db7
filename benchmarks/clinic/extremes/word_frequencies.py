"""Topic of short synthetic documents from their relative word frequencies."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

SAFE = "--cured" in sys.argv
WORDS, TOPICS = 120, 4


class Documents(Dataset):
    def __init__(self, n=800):
        taste = torch.softmax(2 * torch.randn(TOPICS, WORDS), dim=1)
        self.topic = torch.randint(TOPICS, (n,))
        self.counts = torch.stack(
            [
                torch.bincount(torch.multinomial(taste[k], 40, replacement=True), minlength=WORDS)
                for k in self.topic
            ]
        )
        self.counts[n // 2] = 0  # a blank page

    def __len__(self):
        return len(self.topic)

    def __getitem__(self, i):
        return {"counts": self.counts[i].float(), "topic": self.topic[i]}


class TopicNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(WORDS, 40)
        self.classify = nn.Linear(40, TOPICS)

    def forward(self, counts):
        total = counts.sum(1, keepdim=True)
        if SAFE:
            total = total.clamp(min=1)
        return self.classify(torch.relu(self.project(10 * counts / total)))


data = Documents()
net = TopicNet()
opt = torch.optim.Adam(net.parameters(), lr=0.01)
seen = []
for epoch in range(12):
    for batch in DataLoader(data, batch_size=50):
        loss = nn.functional.cross_entropy(net(batch["counts"]), batch["topic"])
        opt.zero_grad()
        loss.backward()
        opt.step()
        seen.append(loss.item())
print(f"final loss: {sum(seen[-10:]) / 10}")
