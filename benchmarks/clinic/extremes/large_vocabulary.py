"""Sentiment of synthetic sentences: mean of word embeddings out of a large vocabulary, most of it rare."""
import torch
from torch import nn
from torch.utils.data import DataLoader

VOCAB, LENGTH = 20000, 24


class BagClassifier(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, dim, padding_idx=0)
        self.classifier = nn.Sequential(nn.Linear(dim, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, ids):
        mask = (ids != 0).unsqueeze(-1).float()
        mean = (self.embedding(ids) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.classifier(mean)


def sentences(n):
    # frequent words 1..150 carry the mood (even: good, odd: bad); the others hardly ever occur
    mood = torch.randint(2, (n,))
    ids = torch.randint(1, 76, (n, LENGTH)) * 2 - (torch.rand(n, LENGTH) < torch.where(mood == 1, 0.2, 0.8)[:, None]).long()
    rare = torch.rand(n, LENGTH) < 0.02
    ids[rare] = torch.randint(151, VOCAB, (int(rare.sum()),))
    for row, keep in zip(ids, torch.randint(12, LENGTH + 1, (n,))):
        row[keep:] = 0
    return list(zip(ids, mood))


loader = DataLoader(sentences(1600), batch_size=64, shuffle=True)
model = BagClassifier()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
losses = []
for epoch in range(8):
    for ids, mood in loader:
        loss = nn.functional.cross_entropy(model(ids), mood)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
