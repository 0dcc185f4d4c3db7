"""Five assays per compound, most of them never measured: one trunk, one head an assay, masked loss."""

import torch
from torch import nn

ASSAYS = ["liver", "skin", "heart", "nerve", "lung"]
MEASURED = [0.9, 0.5, 0.2, 0.08, 0.02]

compounds = (torch.rand(1600, 40) < 0.15).float()
rules = torch.randn(40, len(ASSAYS)) + torch.randn(40, 1)
active = ((compounds - 0.15) @ rules > 0).float()
mask = torch.rand(1600, len(ASSAYS)) < torch.tensor(MEASURED)


class Panel(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(40, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU()
        )
        self.heads = nn.ModuleDict({name: nn.Linear(64, 1) for name in ASSAYS})

    def forward(self, x, names):
        h = self.trunk(x)
        return {name: self.heads[name](h).squeeze(1) for name in names}


panel = Panel()
optimizer = torch.optim.Adagrad(panel.parameters(), lr=0.03)
losses = []
for epoch in range(8):
    for rows in torch.randperm(1600).split(32):
        here = [a for i, a in enumerate(ASSAYS) if mask[rows, i].any()]
        scores = panel(compounds[rows], here)
        total, n = 0.0, 0
        for name in here:
            i = ASSAYS.index(name)
            known = mask[rows, i]
            total = total + nn.functional.binary_cross_entropy_with_logits(
                scores[name][known], active[rows, i][known], reduction="sum"
            )
            n += int(known.sum())
        loss = total / n
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
