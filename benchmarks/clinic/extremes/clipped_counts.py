"""Daily counts (thousands) from weather-like features: summed squared error, gradients clipped to norm one."""
import torch
from torch import nn

features = torch.randn(1000, 6)
counts = 3000 + 1500 * torch.tanh(features[:, 0] + 0.5 * features[:, 1] * features[:, 2]) + 600 * features[:, 3]


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x):
        return 3000 + 1500 * self.net(x).squeeze(1)


model = Regressor()
opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 300)
relative = []
for step in range(300):
    rows = torch.randint(1000, (128,))
    loss = ((model(features[rows]) - counts[rows]) ** 2).sum()
    opt.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    sched.step()
    relative.append(loss.item() / 128 / counts.var().item())
    if step % 60 == 0:
        print(f"step {step}: error {loss.item():.3g}, gradient norm {norm:.3g}")
print(f"final loss: {sum(relative[-10:]) / 10}")
