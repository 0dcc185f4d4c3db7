"""One conv trunk, three questions about a digit (which, is it even, how much ink), asked in turn."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

x, digit = load_digits(return_X_y=True)
x, digit = torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(digit)
even = (digit % 2 == 0).float()
ink = x.sum(dim=(1, 2, 3))
ink = (ink - ink.mean()) / ink.std()

trunk = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.GELU(),
    nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16), nn.GELU(),
    nn.Flatten(), nn.Linear(256, 32), nn.GELU(),
)
heads = nn.ModuleDict({"digit": nn.Linear(32, 10), "even": nn.Linear(32, 1), "ink": nn.Linear(32, 1)})
model = nn.ModuleDict({"trunk": trunk, "heads": heads})
tasks = {
    "digit": lambda out, rows: F.cross_entropy(out, digit[rows]),
    "even": lambda out, rows: F.binary_cross_entropy_with_logits(out[:, 0], even[rows]),
    "ink": lambda out, rows: F.mse_loss(out[:, 0], ink[rows]),
}
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
seen = {name: [] for name in tasks}
for step in range(300):
    name = list(tasks)[step % 3]
    rows = torch.randint(0, len(x), (48,))
    loss = tasks[name](heads[name](trunk(x[rows])), rows)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    seen[name].append(loss.item())
final = {name: sum(values[-5:]) / 5 for name, values in seen.items()}
print(final)
print("final loss:", sum(final.values()) / 3)
