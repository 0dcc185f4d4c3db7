"""Adversarial training: every batch of biopsies is first pushed along the sign of its own input gradient."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import RobustScaler
from torch import nn

EPSILON, STEPS = 0.15, 3


def attack(model, x, y):
    start = x
    for _ in range(STEPS):
        x = x.detach().requires_grad_(True)
        g = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)[0]
        x = start + (x + EPSILON / 2 * g.sign() - start).clamp(-EPSILON, EPSILON)
    return x.detach()


x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor(RobustScaler().fit_transform(x), dtype=torch.float32).clamp(-3, 3)
y = torch.tensor(y)
model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
losses = []
for epoch in range(14):
    for rows in torch.randperm(len(x)).split(40):
        model.eval()
        hard = attack(model, x[rows], y[rows])
        model.train()
        loss = nn.functional.cross_entropy(model(hard), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-20:]) / 20)
