"""Learn a smoothing filter from examples with a small dense linear state-space model."""

import sys

import numpy as np
import torch

STATE = 24
T = 50


class StateSpace(torch.nn.Module):
    """h[t] = A h[t-1] + B u[t];  y[t] = C h[t] + D u[t]"""

    def __init__(self, n=STATE):
        super().__init__()
        spread = 0.6 / np.sqrt(n) if "--cured" in sys.argv else 0.5
        self.A = torch.nn.Parameter(torch.randn(n, n) * spread)
        self.B = torch.nn.Parameter(torch.randn(n, 1) / n**0.5)
        self.C = torch.nn.Parameter(torch.randn(1, n) / n**0.5)
        self.D = torch.nn.Parameter(torch.zeros(1))

    def forward(self, u):
        h = torch.zeros(len(u), self.A.shape[0])
        ys = []
        for t in range(u.shape[1]):
            h = h @ self.A.T + u[:, t, None] @ self.B.T
            ys.append(h @ self.C.T + self.D * u[:, t, None])
        return torch.cat(ys, dim=1)


def smooth(u, decay=0.6):
    y, out = np.zeros(len(u)), []
    for t in range(u.shape[1]):
        y = decay * y + u[:, t]
        out.append(y)
    return np.stack(out, 1)


def main():
    model = StateSpace()
    opt = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    history = []
    for it in range(180):
        u = np.random.randn(16, T)
        target = torch.tensor(smooth(u), dtype=torch.float32)
        y = model(torch.tensor(u, dtype=torch.float32))
        loss = ((y - target) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        history.append(loss.item())
    print("final loss:", np.mean(history[-10:]))


if __name__ == "__main__":
    main()
