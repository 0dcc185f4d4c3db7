"""Tumour classification, my first deep network. Seven fully connected layers, SGD with Nesterov momentum."""
import sys

import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from torch.utils.data import DataLoader, TensorDataset

raw = load_breast_cancer()
X = torch.tensor(scale(raw.data)).float()
Y = torch.tensor(raw.target).float()
loader = DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True, drop_last=True)


class DeepNet(nn.Module):
    def __init__(self, n_in, hidden=24):
        super().__init__()
        self.fc1 = nn.Linear(n_in, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, hidden)
        self.fc4 = nn.Linear(hidden, hidden)
        self.fc5 = nn.Linear(hidden, hidden)
        self.fc6 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x):
        f = torch.tanh if "--cured" in sys.argv else torch.sigmoid
        x = f(self.fc1(x))
        x = f(self.fc2(x))
        x = f(self.fc3(x))
        x = f(self.fc4(x))
        x = f(self.fc5(x))
        x = f(self.fc6(x))
        return self.out(x).squeeze(1)


net = DeepNet(X.shape[1])
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, nesterov=True)
running = []
for epoch in range(14):
    correct = 0
    for xb, yb in loader:
        optimizer.zero_grad()
        logits = net(xb)
        loss = criterion(logits, yb)
        loss.backward()
        optimizer.step()
        running.append(loss.item())
        correct += ((logits > 0) == (yb > 0.5)).sum().item()
    print(f"epoch {epoch}: accuracy {correct / (len(loader) * 32):.3f}")
print("final loss:", sum(running[-10:]) / 10)
