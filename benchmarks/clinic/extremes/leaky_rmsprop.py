"""Breast-cancer detection with a six-layer leaky rectifier net and RMSprop."""
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn

table, malignant = load_breast_cancer(return_X_y=True)
table = torch.tensor(StandardScaler().fit_transform(table)).float()
malignant = torch.tensor(malignant).float().view(-1, 1)
widths = [30, 64, 64, 48, 48, 32]
parts = []
for left, right in zip(widths, widths[1:]):
    parts.extend([nn.Linear(left, right), nn.LeakyReLU(0.01)])
net = nn.Sequential(*parts, nn.Linear(32, 1))
opt = torch.optim.RMSprop(net.parameters(), lr=5e-4)
history = []
for step in range(180):
    pick = torch.randperm(len(table))[:100]
    loss = nn.BCEWithLogitsLoss()(net(table[pick]), malignant[pick])
    opt.zero_grad()
    loss.backward()
    opt.step()
    history.append(float(loss))
print(f"final loss: {sum(history[-10:]) / 10}")
