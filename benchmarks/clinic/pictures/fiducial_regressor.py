"""Find the fiducial marker: a small fully convolutional net scores the pixels, and the best one gives the position."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SIZE = 12
MARKER = torch.tensor([[-1.0, 1, -1], [1, 1, 1], [-1, 1, -1]]) * 2


def make_boards(n, dust=4):
    xy = torch.randint(2, SIZE - 2, (n, 2))
    boards = 0.3 * torch.randn(n, 1, SIZE, SIZE)
    for board, (r, c) in zip(boards, xy.tolist()):
        for i, j in torch.randint(1, SIZE - 1, (dust, 2)).tolist():
            board[0, i - 1 : i + 2, j - 1 : j + 2] = MARKER.flatten()[torch.randperm(9)].view(3, 3)
        board[0, r - 1 : r + 2, c - 1 : c + 2] = MARKER
    return boards, xy.float() / (SIZE - 1) * 2 - 1


class Locator(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.SiLU(),
            nn.Conv2d(12, 12, 3, padding=1), nn.SiLU(),
            nn.Conv2d(12, 1, 3, padding=1),
        )  # fmt: skip
        self.calibrate = nn.Linear(2, 2)
        axis = torch.linspace(-1, 1, SIZE)
        self.register_buffer("grid", torch.cartesian_prod(axis, axis))

    def forward(self, x):
        flat = self.scores(x).flatten(1)
        if "--cured" in sys.argv:
            position = flat.softmax(dim=1) @ self.grid
        else:
            position = self.grid[flat.argmax(dim=1)]
        return self.calibrate(position)


boards, positions = make_boards(800)
loader = DataLoader(TensorDataset(boards, positions), batch_size=40, shuffle=True)
model = Locator()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
smooth_l1 = nn.SmoothL1Loss(beta=0.5)
values = []
for epoch in range(15):
    for x, target in loader:
        loss = smooth_l1(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    print(f"epoch {epoch}: {sum(values[-20:]) / 20:.4f}")
print(f"final loss: {sum(values[-10:]) / 10:.5f}")
