"""Conditional image completion with an adversary: the left half of a wave is given, the right half is painted."""

import torch
import torch.nn.functional as F
from torch import nn


def waves(n):
    phase = torch.rand(n, 1, 1) * 6.2832
    slope = torch.rand(n, 1, 1) * 2 - 1
    r, c = torch.arange(8.0).view(1, 8, 1), torch.arange(8.0).view(1, 1, 8)
    full = torch.sin(0.7 * c + slope * r * 0.5 + phase)[:, None]
    return full[..., :4], full[..., 4:]


painter = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(),
    nn.Linear(16 * 32, 64), nn.LeakyReLU(0.2), nn.Linear(64, 32), nn.Unflatten(1, (1, 8, 4)),
)  # fmt: skip
critic = nn.Sequential(
    nn.utils.spectral_norm(nn.Conv2d(1, 12, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
    nn.utils.spectral_norm(nn.Conv2d(12, 24, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
    nn.Flatten(), nn.utils.spectral_norm(nn.Linear(24 * 4, 1)),
)  # fmt: skip
opt_p = torch.optim.Adam(painter.parameters(), lr=1e-3, betas=(0.5, 0.999))
opt_c = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.999))

reconstruction = []
for step in range(240):
    left, right = waves(24)

    painted = painter(left)
    real_score = critic(torch.cat([left, right], dim=3))
    fake_score = critic(torch.cat([left, painted.detach()], dim=3))
    loss_c = F.relu(1 - real_score).mean() + F.relu(1 + fake_score).mean()
    opt_c.zero_grad()
    loss_c.backward()
    opt_c.step()

    l1 = F.l1_loss(painted, right)
    loss_p = 10 * l1 - critic(torch.cat([left, painted], dim=3)).mean()
    opt_p.zero_grad()
    loss_p.backward()
    opt_p.step()

    reconstruction.append(l1.item())
    if step % 40 == 0:
        print(f"{step}: critic {loss_c.item():.3f} painter {loss_p.item():.3f}")
print("final loss:", sum(reconstruction[-10:]) / 10)
