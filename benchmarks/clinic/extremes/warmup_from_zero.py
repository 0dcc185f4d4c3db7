"""Digits with AdamW and a linear warm-up that is idle at first, then cosine decay."""
import math

import torch
from sklearn.datasets import load_digits
from torch import nn

IDLE, WARM, TOTAL = 12, 40, 260


def schedule(step):
    if step < IDLE:
        return 0.0
    if step < WARM:
        return (step - IDLE) / (WARM - IDLE)
    return 0.5 * (1 + math.cos(math.pi * (step - WARM) / (TOTAL - WARM)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.ff1 = nn.Linear(64, 128)
        self.ff2 = nn.Linear(128, 10)

    def forward(self, x):
        return self.ff2(nn.functional.gelu(self.ff1(self.norm(x))))


X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X).float(), torch.tensor(y)
net = Net()
optim = torch.optim.AdamW(net.parameters(), lr=4e-3)
lr = torch.optim.lr_scheduler.LambdaLR(optim, schedule)
out = []
for _ in range(TOTAL):
    b = torch.randint(len(X), (80,))
    loss = nn.functional.cross_entropy(net(X[b]), y[b], label_smoothing=0.02)
    optim.zero_grad()
    loss.backward()
    optim.step()
    lr.step()
    out.append(loss.item())
print(f"final loss: {sum(out[-10:]) / 10}")
