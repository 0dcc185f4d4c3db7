"""Topics of short texts: an EmbeddingBag below a deep tower."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

VOCAB, TOPICS = 200, 4


class Texts(Dataset):
    def __init__(self, n=1500):
        own = torch.randint(0, VOCAB // TOPICS, (n, 20))
        self.topic = torch.randint(0, TOPICS, (n,))
        words = own + self.topic[:, None] * (VOCAB // TOPICS)
        noise = torch.randint(0, VOCAB, (n, 20))
        self.words = torch.where(torch.rand(n, 20) < 0.5, words, noise)

    def __len__(self):
        return len(self.topic)

    def __getitem__(self, i):
        return {"words": self.words[i], "topic": self.topic[i]}


class Tower(nn.Module):
    def __init__(self, dim=32, depth=8, act=nn.Sigmoid):
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCAB, dim, mode="mean")
        tower = []
        for _ in range(depth):
            tower.extend([nn.Linear(dim, dim), act()])
        self.tower = nn.Sequential(*tower)
        self.out = nn.Linear(dim, TOPICS)

    def forward(self, words):
        return self.out(self.tower(self.bag(words)))


if "--cured" in sys.argv:
    model = Tower(act=nn.GELU)
    for m in model.tower:
        if isinstance(m, nn.Linear):
            nn.init.orthogonal_(m.weight, gain=1.6)
else:
    model = Tower()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
loss_fn = nn.CrossEntropyLoss()
losses = []
for epoch in range(8):
    for batch in DataLoader(Texts(), batch_size=50, shuffle=True):
        optimizer.zero_grad()
        loss = loss_fn(model(batch["words"]), batch["topic"])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
