"""Digits through a wide rectified code in which few units answer to any one image."""
import torch
from sklearn.datasets import load_digits
from torch import nn


class WideCode(nn.Module):
    def __init__(self):
        super().__init__()
        self.code = nn.Linear(64, 512)
        nn.init.normal_(self.code.weight, std=0.15)
        nn.init.constant_(self.code.bias, -1.2)
        self.readout = nn.Linear(512, 10)

    def forward(self, x):
        return self.readout(self.code(x).relu())


bunch = load_digits()
x = torch.tensor((bunch.data - bunch.data.mean(0)) / 5.0, dtype=torch.float32)
y = torch.tensor(bunch.target)
model = WideCode()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
losses = []
for step in range(250):
    rows = torch.randint(len(x), (64,))
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
with torch.no_grad():
    print("share of zeros in the code:", (model.code(x) <= 0).float().mean().item())
print(f"final loss: {sum(losses[-10:]) / 10}")
