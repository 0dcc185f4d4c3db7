"""Six layers, five of them logistic, on the digits; Adam finds the way after a while."""

import torch
from sklearn.datasets import load_digits
from torch import nn

digits = load_digits()
x = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1
y = torch.tensor(digits.target)


class Net(nn.Module):
    def __init__(self, width=100):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, width)] + [nn.Linear(width, width) for _ in range(4)])
        self.final = nn.Linear(width, 10)

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.sigmoid(layer(x))
        return self.final(x)


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
losses = []
for step in range(400):
    i = torch.randint(0, len(x), (100,))
    loss = nn.functional.cross_entropy(net(x[i]), y[i])
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(step, loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
