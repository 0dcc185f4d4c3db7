"""Benign or malignant: a small tanh net on the breast-cancer set with a hand-written cross-entropy."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(30, 64)
        self.output = nn.Linear(64, 1)

    def forward(self, x):
        return self.output(torch.tanh(self.hidden(x))).squeeze(-1)


def cross_entropy(logit, t):
    if "--cured" in sys.argv:
        return F.binary_cross_entropy_with_logits(logit, t)
    p = torch.sigmoid(logit)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


raw = load_breast_cancer()
x = torch.tensor(StandardScaler().fit_transform(raw.data), dtype=torch.float32)
t = torch.tensor(raw.target, dtype=torch.float32)
clf = Classifier()
opt = torch.optim.Adam(clf.parameters(), lr=0.03)
record = []
for epoch in range(300):
    loss = cross_entropy(clf(x), t)
    opt.zero_grad()
    loss.backward()
    opt.step()
    record.append(loss.item())
print(f"final loss: {sum(record[-10:]) / 10}")
