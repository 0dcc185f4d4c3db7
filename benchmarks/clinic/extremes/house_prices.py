"""Prices (tens of thousands) from a handful of attributes, raw squared error, Adam with a generous rate."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

attributes = torch.rand(800, 5)
prices = 8000 + 9000 * attributes[:, 0] + 6000 * attributes[:, 1] * attributes[:, 2] - 4000 * attributes[:, 3] ** 2
prices = prices + 200 * torch.randn(800)


class Pricer(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 64)
        self.b = nn.Linear(64, 64)
        self.price = nn.Linear(64, 1)

    def forward(self, x):
        return self.price(torch.relu(self.b(torch.relu(self.a(x)))))[:, 0]


pricer = Pricer()
adam = torch.optim.Adam(pricer.parameters(), lr=0.03)
losses = []
for epoch in range(25):
    for x, p in DataLoader(TensorDataset(attributes, prices), batch_size=64, shuffle=True):
        loss = ((pricer(x) - p) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
print("variance of the prices:", prices.var().item())
print(f"final loss: {sum(losses[-10:]) / 10}")
