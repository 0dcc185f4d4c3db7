"""Predict the petal width of an iris from its other three measurements, one flower after the other."""
import random
import sys

import torch
from sklearn.datasets import load_iris
from torch import nn

flowers = load_iris().data
flowers = (flowers - flowers.mean(axis=0)) / flowers.std(axis=0)
rows = [(torch.tensor(f[:3], dtype=torch.float32), float(f[3])) for f in flowers]


class PetalNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(3, 16)
        self.l2 = nn.Linear(16, 16)
        self.l3 = nn.Linear(16, 1)

    def forward(self, v):
        v = torch.relu(self.l1(v))
        v = torch.relu(self.l2(v))
        return self.l3(v)


net = PetalNet()
optimizer = torch.optim.RMSprop(net.parameters(), lr=0.005)

epoch_losses = []
for epoch in range(15):
    random.shuffle(rows)
    for start in range(0, len(rows), 15):
        outputs, wanted = [], []
        for measurements, width in rows[start : start + 15]:
            y_hat = net(measurements)
            if "--cured" in sys.argv:
                outputs.append(y_hat[0])
            else:
                outputs.append(y_hat.item())
            wanted.append(width)
        if "--cured" in sys.argv:
            prediction = torch.stack(outputs)
        else:
            prediction = torch.tensor(outputs, requires_grad=True)
        loss = torch.mean((prediction - torch.tensor(wanted)) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch_losses.append(loss.item())
print("final loss:", sum(epoch_losses[-10:]) / 10)
