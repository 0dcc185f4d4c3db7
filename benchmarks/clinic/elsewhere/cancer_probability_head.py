"""Benign or malignant: an MLP with a probability head, binary cross-entropy and Adagrad."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn

x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor(StandardScaler().fit_transform(x), dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)[:, None]


class Diagnosis(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(30, 20)
        self.act = nn.ReLU()
        self.score = nn.Linear(20, 1)
        self.probability = nn.Sigmoid() if "--cured" in sys.argv else nn.Softmax(dim=1)

    def forward(self, x):
        return self.probability(self.score(self.act(self.hidden(x))))


model = Diagnosis()
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
criterion = nn.BCELoss()
history = []
for epoch in range(12):
    for rows in torch.randperm(len(x)).split(48):
        prediction = model(x[rows])
        loss = criterion(prediction, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
