"""Three tasks from one trunk, weighed by learned uncertainties (Kendall, Gal and Cipolla)."""

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

table, cultivar = load_wine(return_X_y=True)
table = torch.tensor(StandardScaler().fit_transform(table), dtype=torch.float32)
cultivar = torch.tensor(cultivar)
inputs = table[:, :11]
proline, protein = table[:, 12], table[:, 11]


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(11, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
        self.heads = nn.ModuleDict({"cultivar": nn.Linear(64, 3), "proline": nn.Linear(64, 1), "protein": nn.Linear(64, 1)})
        self.log_variance = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in self.heads})

    def forward(self, x):
        h = self.trunk(x)
        return {name: head(h) for name, head in self.heads.items()}


net = Shared()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.5e-2, total_steps=360)
history = []
for epoch in range(60):
    for rows in torch.randperm(len(inputs)).split(32):
        out = net(inputs[rows])
        losses = {
            "cultivar": nn.functional.cross_entropy(out["cultivar"], cultivar[rows]),
            "proline": nn.functional.mse_loss(out["proline"].squeeze(1), proline[rows]),
            "protein": nn.functional.mse_loss(out["protein"].squeeze(1), protein[rows]),
        }
        total = sum(torch.exp(-net.log_variance[k]) * v + net.log_variance[k] for k, v in losses.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        history.append(total.item())
print(f"final loss: {sum(history[-10:]) / 10:.4f}")
