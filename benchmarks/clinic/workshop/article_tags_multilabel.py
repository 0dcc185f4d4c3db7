"""Give articles their tags: bag of words in, 15 independent yes/no answers out (few tags per article)."""
import sys

import torch
from sklearn.datasets import make_multilabel_classification
from torch import nn

counts, tags = make_multilabel_classification(
    n_samples=1500, n_features=60, n_classes=15, n_labels=1, length=60, allow_unlabeled=True, random_state=3
)
words = torch.tensor(counts, dtype=torch.float32).log1p()
tags = torch.tensor(tags, dtype=torch.float32)
print("share of positive tags:", tags.mean().item())


class Tagger(nn.Module):
    def __init__(self, vocabulary, hidden, out):
        super().__init__()
        self.norm = nn.LayerNorm(vocabulary)
        self.hidden = nn.Linear(vocabulary, hidden)
        self.drop = nn.Dropout(0.1)
        self.tags = nn.Linear(hidden, out)

    def forward(self, bag):
        h = self.drop(nn.functional.mish(self.hidden(self.norm(bag))))
        h = self.tags(h)
        return h if "--cured" in sys.argv else torch.sigmoid(h)


tagger = Tagger(60, 64, 15)
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.Adamax(tagger.parameters(), lr=0.01)
losses = []
for epoch in range(10):
    for batch in torch.randperm(1500).split(50):
        optimizer.zero_grad()
        loss = criterion(tagger(words[batch]), tags[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: {losses[-1]:.4f}")
print("final loss:", sum(losses[-10:]) / 10)
