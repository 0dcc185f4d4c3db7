"""A sparse mixture of eight experts, one chosen for each sample, with a load-balancing term; digits."""
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Mixture(nn.Module):
    def __init__(self, experts=8, inner=24):
        super().__init__()
        self.gate = nn.Linear(64, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(64, inner), nn.ReLU(), nn.Linear(inner, 10)) for _ in range(experts))

    def forward(self, x):
        p = F.softmax(self.gate(x), dim=1)
        weight, chosen = p.max(dim=1)
        out = x.new_zeros(len(x), 10)
        for e, expert in enumerate(self.experts):
            rows = (chosen == e).nonzero().squeeze(1)
            if len(rows):
                out = out.index_add(0, rows, weight[rows, None] * expert(x[rows]))
        share = F.one_hot(chosen, len(self.experts)).float().mean(0)
        return out, len(self.experts) * (share * p.mean(0)).sum()


data, target = load_digits(return_X_y=True)
data = torch.tensor((data - data.mean(0)) / 6.0, dtype=torch.float32)
target = torch.tensor(target)
mix = Mixture()
opt = torch.optim.Adam(mix.parameters(), lr=5e-3)
losses = []
for step in range(250):
    i = torch.randint(len(data), (96,))
    out, balance = mix(data[i])
    loss = F.cross_entropy(out, target[i])
    opt.zero_grad()
    (loss + 0.01 * balance).backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
