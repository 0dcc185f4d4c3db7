"""Deep image prior: one fixed random input, one corrupted photograph, fit only where pixels are known."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

photo = torch.tensor(load_digits().images[:4], dtype=torch.float32)
photo = torch.cat([torch.cat([photo[0], photo[1]], 1), torch.cat([photo[2], photo[3]], 1)], 0)[None, None] / 16
known = (torch.rand_like(photo) < 0.7).float()
code = 0.1 * torch.randn(1, 8, 4, 4)


class Hourglass(nn.Module):
    def __init__(self, c=24):
        super().__init__()
        self.a = nn.Conv2d(8, c, 3, padding=1)
        self.na = nn.BatchNorm2d(c)
        self.b = nn.Conv2d(c, c, 3, padding=1)
        self.nb = nn.BatchNorm2d(c)
        self.rgb = nn.Conv2d(c, 1, 3, padding=1)

    def forward(self, z):
        z = F.leaky_relu(self.na(self.a(F.interpolate(z, scale_factor=2.0))), 0.2)
        z = F.leaky_relu(self.nb(self.b(F.interpolate(z, scale_factor=2.0))), 0.2)
        return torch.sigmoid(self.rgb(z))


net = Hourglass()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
recent = []
for i in range(300):
    optimizer.zero_grad()
    loss = ((net(code) - photo) ** 2 * known).sum() / known.sum()
    loss.backward()
    optimizer.step()
    recent = (recent + [loss.item()])[-10:]
print("final loss:", sum(recent) / len(recent))
