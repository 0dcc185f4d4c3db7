"""Learn the vector field of a damped oscillator from whole trajectories: fourth-order Runge-Kutta, tanh field."""
import torch
from torch import nn

DT, STEPS = 0.1, 15


def rk4(f, z, dt):
    k1 = f(z)
    k2 = f(z + dt / 2 * k1)
    k3 = f(z + dt / 2 * k2)
    k4 = f(z + dt * k3)
    return z + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def roll_out(f, z):
    path = [z]
    for _ in range(STEPS):
        path.append(rk4(f, path[-1], DT))
    return torch.stack(path, 1)


A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
KM = 1000
truth = roll_out(lambda z: z @ A.T - 0.05 * z**3, torch.randn(128, 2)) / KM

field = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
nn.init.zeros_(field[-1].weight)
nn.init.zeros_(field[-1].bias)
opt = torch.optim.Adam(field.parameters(), lr=0.01)
losses = []
for it in range(150):
    rows = torch.randint(len(truth), (32,))
    path = roll_out(lambda z: field(KM * z) / KM, truth[rows, 0])
    loss = (path - truth[rows]).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    if it % 40 == 0:
        print(f"{it} loss {loss.item():.3e}")
print("final loss:", sum(losses[-10:]) / 10)
