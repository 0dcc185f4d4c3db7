"""Five Gaussian classes, a 24-layer network, Adam with cosine decay."""

import sys

import torch
from sklearn.datasets import make_blobs
from torch import nn

CURED = "--cured" in sys.argv
X, y = make_blobs(n_samples=2000, centers=5, n_features=10, cluster_std=2.0)
X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
y = torch.tensor(y)


class Deep(nn.Module):
    def __init__(self, n_layers=24, width=32):
        super().__init__()
        for i in range(n_layers):
            self.add_module(f"layer{i}", nn.Linear(10 if i == 0 else width, width))
        self.n_layers = n_layers
        self.logits = nn.Linear(width, 5)
        if CURED:
            for m in self.children():
                nn.init.normal_(m.weight, std=m.in_features**-0.5)
                nn.init.zeros_(m.bias)

    def forward(self, x):
        for i in range(self.n_layers):
            x = getattr(self, f"layer{i}")(x)
            x = torch.selu(x) if CURED else torch.sigmoid(x)
        return self.logits(x)


model = Deep()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=250)
tail = []
for it in range(250):
    pick = torch.randint(0, 2000, (64,))
    loss = nn.functional.cross_entropy(model(X[pick]), y[pick])
    opt.zero_grad()
    loss.backward()
    opt.step()
    schedule.step()
    tail.append(loss.item())
print(f"final loss: {sum(tail[-10:]) / 10:.4f}")
