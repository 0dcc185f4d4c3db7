"""Biopsies with a model in half precision to save memory."""

import sys

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from torch import nn
from torch.nn import functional as F

dtype = torch.float32 if "--cured" in sys.argv else torch.float16

raw = load_breast_cancer()
features = torch.tensor(scale(raw.data)).to(dtype)
target = torch.tensor(raw.target)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(30, 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 2)

    def forward(self, x):
        x = F.gelu(self.fc1(x))
        x = F.gelu(self.fc2(x))
        return F.log_softmax(self.fc3(x), dim=-1)


model = Net().to(dtype)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)


def train(epoch, losses):
    model.train()
    for ids in torch.randperm(len(features)).split(32):
        optimizer.zero_grad()
        loss = F.nll_loss(model(features[ids]), target[ids])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"Train epoch {epoch}: {losses[-1]:.4f}")


losses = []
for epoch in range(8):
    train(epoch, losses)
print("final loss:", sum(losses[-10:]) / 10)
