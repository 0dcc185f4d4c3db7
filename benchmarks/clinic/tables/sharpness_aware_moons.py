"""Two moons with sharpness-aware minimisation: climb a little, take the gradient there, step from below."""

import torch
from sklearn.datasets import make_moons
from torch import nn


class SAM(torch.optim.Optimizer):
    def __init__(self, params, rho=0.08, **rest):
        super().__init__(params, {"rho": rho})
        self.inner = torch.optim.SGD(self.param_groups[0]["params"], **rest)

    def _all(self):
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        length = torch.stack([p.grad.norm() for p in self._all()]).norm() + 1e-12
        for p in self._all():
            self.state[p]["climb"] = p.grad * (self.defaults["rho"] / length)
            p.add_(self.state[p]["climb"])
        with torch.enable_grad():
            closure()
        for p in self._all():
            p.sub_(self.state[p]["climb"])
        self.inner.step()
        return loss


x, y = make_moons(800, noise=0.1)
x, y = torch.tensor(x).float(), torch.tensor(y).float()
net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = SAM(net.parameters(), lr=0.1, momentum=0.9)
losses = []
for epoch in range(13):
    for rows in torch.randperm(len(x)).split(32):

        def closure():
            optimizer.zero_grad()
            value = nn.functional.binary_cross_entropy_with_logits(net(x[rows]).squeeze(1), y[rows])
            value.backward()
            return value

        losses.append(optimizer.step(closure).item())
print("final loss:", sum(losses[-10:]) / 10)
