"""Two moons with twenty ReLU layers, initialised after He."""

import torch
from sklearn.datasets import make_moons
from torch import nn

X, y = make_moons(1000, noise=0.1)
X, y = torch.tensor(X, dtype=torch.float32), torch.tensor(y)


def he(m):
    if isinstance(m, nn.Linear):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        nn.init.zeros_(m.bias)


body = [nn.Linear(2, 100), nn.ReLU()]
for _ in range(18):
    body += [nn.Linear(100, 100), nn.ReLU()]
model = nn.Sequential(*body, nn.Linear(100, 2)).apply(he)
opt = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
losses = []
for step in range(300):
    i = torch.randint(0, 1000, (64,))
    loss = nn.functional.cross_entropy(model(X[i]), y[i])
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-20:]) / 20:.5f}")
