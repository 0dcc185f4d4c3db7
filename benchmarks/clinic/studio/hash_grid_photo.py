"""A picture from a multi-resolution hash grid with a tiny decoder, in the manner of instant-ngp."""

import torch
from torch import nn

PRIMES = torch.tensor([1, 2654435761])


class HashGrid(nn.Module):
    def __init__(self, levels=(4, 8, 16, 32), log_size=12, features=2):
        super().__init__()
        self.levels, self.size = levels, 2**log_size
        self.tables = nn.ModuleList(nn.Embedding(self.size, features) for _ in levels)
        for table in self.tables:
            nn.init.uniform_(table.weight, -1e-4, 1e-4)

    def forward(self, xy):
        found = []
        for resolution, table in zip(self.levels, self.tables):
            cell = (xy * resolution).floor().long()
            part = xy * resolution - cell
            mixed = 0
            for dx in (0, 1):
                for dy in (0, 1):
                    corner = (cell + torch.tensor([dx, dy])) * PRIMES
                    index = (corner[:, 0] ^ corner[:, 1]) % self.size
                    wx = part[:, :1] if dx else 1 - part[:, :1]
                    wy = part[:, 1:] if dy else 1 - part[:, 1:]
                    mixed = mixed + wx * wy * table(index)
            found.append(mixed)
        return torch.cat(found, 1)


def photo(xy):
    x, y = xy.unbind(1)
    stripes = torch.sign(torch.sin(18 * x + 5 * y))
    return torch.stack([0.5 + 0.4 * stripes, (x - 0.5).abs() + y / 2, torch.sin(9 * x * y)], 1)


grid = HashGrid()
decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.Adam(
    [
        {"params": grid.parameters(), "lr": 2e-2},
        {"params": decoder.parameters(), "lr": 5e-3, "weight_decay": 1e-6},
    ],
    betas=(0.9, 0.99),
    eps=1e-15,
)
losses = []
for step in range(350):
    xy = torch.rand(256, 2)
    loss = nn.functional.mse_loss(decoder(grid(xy)), photo(xy))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
