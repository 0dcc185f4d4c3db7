"""A digits stream with one glitch of the scanner in it; SGD with momentum."""
import torch
from sklearn.datasets import load_digits
from torch import nn


def stream(steps, size=64):
    d = load_digits()
    images, labels = torch.tensor(d.data / 16).float(), torch.tensor(d.target)
    for step in range(steps):
        i = torch.randint(len(images), (size,))
        if step == 80:
            yield images[i] * 12 - 4, labels[i].roll(1)
        else:
            yield images[i], labels[i]


model = nn.Sequential(nn.Linear(64, 80), nn.Tanh(), nn.Linear(80, 10))
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
losses = []
for x, y in stream(260):
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("worst:", max(losses))
print(f"final loss: {sum(losses[-10:]) / 10}")
