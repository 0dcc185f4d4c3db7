"""An LSTM that tells which of two symbols came more ofnine in ten steps."""

import torch
from torch import nn


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 24, num_layers=2, batch_first=True)
        self.out = nn.Linear(24, 1)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.out(states[:, -1]).squeeze(-1)


net = Counter()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
curve = []
for step in range(200):
    x = torch.randint(0, 2, (64, 9, 1)).float() * 2 - 1
    y = (x.sum((1, 2)) > 0).float()
    loss = nn.functional.binary_cross_entropy_with_logits(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    curve.append(loss.item())
print(f"final loss: {sum(curve[-10:]) / 10:.4f}")
