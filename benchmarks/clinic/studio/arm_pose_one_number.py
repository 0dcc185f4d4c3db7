"""A robot arm repeats one movement: describe its twelve joint readings by a single number."""

import sys

import torch
from torch import nn

CURED = "--cured" in sys.argv


def block(n_in, n_out, act=True, norm=True):
    parts = [nn.Linear(n_in, n_out)]
    if norm:
        parts.append(nn.LayerNorm(n_out))
    if act:
        parts.append(nn.GELU())
    return nn.Sequential(*parts)


class PoseCoder(nn.Module):
    def __init__(self, joints=12, code=1, width=40):
        super().__init__()
        self.enc1 = block(joints, width)
        self.enc2 = block(width, width)
        self.to_code = block(width, code, act=False, norm=not CURED)
        self.dec1 = block(code, width)
        self.dec2 = block(width, width)
        self.readings = nn.Linear(width, joints)

    def encode(self, x):
        return self.to_code(self.enc2(self.enc1(x)))

    def decode(self, z):
        return self.readings(self.dec2(self.dec1(z)))

    def forward(self, x):
        return self.decode(self.encode(x))


phase = torch.rand(2000, 1)
mix = torch.randn(4, 12)
waves = torch.cat([phase - 0.5, torch.sin(3 * phase), torch.cos(3 * phase), phase**3], 1)
readings = waves @ mix
readings = (readings - readings.mean(0)) / readings.std(0) + 0.03 * torch.randn(2000, 12)

model = PoseCoder()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
errors = []
for step in range(300):
    x = readings[torch.randint(0, 2000, (64,))]
    loss = nn.functional.mse_loss(model(x), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    errors.append(loss.item())
print(f"final loss: {sum(errors[-10:]) / 10:.4f}")
