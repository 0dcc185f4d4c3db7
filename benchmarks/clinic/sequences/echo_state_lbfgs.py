"""An echo state network: a fixed random reservoir, and a readout fitted with LBFGS to a chaotic series."""

import torch
from torch import nn


class EchoState(nn.Module):
    def __init__(self, size=80, radius=0.9):
        super().__init__()
        self.reservoir = nn.RNN(1, size, batch_first=True)
        with torch.no_grad():
            w = torch.randn(size, size)
            self.reservoir.weight_hh_l0.copy_(radius * w / torch.linalg.eigvals(w).abs().max())
            self.reservoir.weight_ih_l0.uniform_(-2, 2)
            self.reservoir.bias_ih_l0.uniform_(-1, 1)
        self.reservoir.requires_grad_(False)
        self.readout = nn.Linear(size, 1)

    def forward(self, u):
        return self.readout(self.reservoir(u)[0])


def logistic_map(n, r=3.9):
    x, out = 0.3 + 0.4 * torch.rand(()).item(), []
    for _ in range(n):
        x = r * x * (1 - x)
        out.append(x)
    return torch.tensor(out)


series = logistic_map(221)
u, target = series[None, :-1, None], series[None, 1:, None]
model = EchoState()
optimizer = torch.optim.LBFGS(
    [p for p in model.parameters() if p.requires_grad], lr=0.5, max_iter=4, history_size=10
)
losses = []
for step in range(100):

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(u)[:, 20:], target[:, 20:])
        loss.backward()
        return loss

    losses.append(optimizer.step(closure).item())
print(f"final loss: {sum(losses[-10:]) / 10:.8f}")
