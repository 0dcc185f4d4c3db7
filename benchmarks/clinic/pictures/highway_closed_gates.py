"""Highway network of twelve convolutions for crosses against rings; the gates start nearly closed."""

import torch
from torch import nn


class Highway(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.transform = nn.Conv2d(c, c, 3, padding=1)
        self.gate = nn.Conv2d(c, c, 3, padding=1)
        nn.init.constant_(self.gate.bias, -4.0)

    def forward(self, x):
        t = torch.sigmoid(self.gate(x))
        return t * torch.tanh(self.transform(x)) + (1 - t) * x


class Net(nn.Module):
    def __init__(self, c=8, depth=12):
        super().__init__()
        self.stem = nn.Conv2d(1, c, 3, stride=2, padding=1)
        self.highway = nn.Sequential(*[Highway(c) for _ in range(depth)])
        self.head = nn.Linear(c, 2)

    def forward(self, x):
        return self.head(self.highway(torch.tanh(self.stem(x))).amax(dim=(2, 3)))


def symbols(n):
    y = torch.randint(2, (n,))
    x = 0.3 * torch.randn(n, 1, 12, 12)
    for k in range(n):
        r, c = torch.randint(0, 7, (2,)).tolist()
        if y[k]:
            x[k, 0, r + 2, c : c + 5] += 1.5
            x[k, 0, r : r + 5, c + 2] += 1.5
        else:
            x[k, 0, r : r + 5, c : c + 5] += 1.5
            x[k, 0, r + 1 : r + 4, c + 1 : c + 4] -= 1.5
    return x, y


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
losses = []
for step in range(160):
    x, y = symbols(24)
    opt.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
