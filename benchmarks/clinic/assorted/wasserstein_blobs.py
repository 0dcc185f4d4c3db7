"""WGAN with clipped weights: three blobs in the plane."""

import torch
from sklearn.datasets import make_blobs
from torch import nn

points, _ = make_blobs(900, centers=[[3.0, 0.0], [5.0, 2.0], [5.0, -2.0]], cluster_std=0.25)
points = torch.tensor(points, dtype=torch.float32)


def sample(n=64):
    return points[torch.randint(len(points), (n,))]


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, n=64):
        return self.net(torch.randn(n, 3))


generator = Generator()
critic = nn.Sequential(nn.Linear(2, 48), nn.LeakyReLU(0.1), nn.Linear(48, 48), nn.LeakyReLU(0.1), nn.Linear(48, 1))
g_opt = torch.optim.RMSprop(generator.parameters(), lr=2e-3)
c_opt = torch.optim.RMSprop(critic.parameters(), lr=2e-3)

gaps = []
for step in range(220):
    for _ in range(3):
        c_loss = critic(generator().detach()).mean() - critic(sample()).mean()
        c_opt.zero_grad()
        c_loss.backward()
        c_opt.step()
        with torch.no_grad():
            for p in critic.parameters():
                p.clamp_(-0.15, 0.15)
    fake = generator()
    g_loss = -critic(fake).mean()
    g_opt.zero_grad()
    g_loss.backward()
    g_opt.step()
    real = sample()
    gaps.append(((fake.mean(0) - real.mean(0)) ** 2 + (fake.std(0) - real.std(0)) ** 2).sum().item())
    if step % 50 == 0:
        print(step, round(c_loss.item(), 4), round(g_loss.item(), 4), round(gaps[-1], 4))
print("final loss:", sum(gaps[-10:]) / 10)
