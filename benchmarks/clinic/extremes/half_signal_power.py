"""Three kinds of vibration told apart by band powers of a raw 12-bit signal, in half precision."""

import sys

import torch
from torch import nn

dtype = torch.float32 if "--cured" in sys.argv else torch.float16


class BandPower(nn.Module):
    def __init__(self):
        super().__init__()
        self.bands = nn.Conv1d(1, 12, 17, stride=2)
        self.hidden = nn.Linear(12, 24)
        self.out = nn.Linear(24, 3)

    def forward(self, signal):
        power = self.bands(signal).pow(2).mean(-1)
        z = torch.log(power + 1e-3)
        return self.out(torch.relu(self.hidden(z - z.mean(1, keepdim=True))))


def recordings(n):
    kind = torch.randint(3, (n,))
    period = torch.tensor([5.0, 9.0, 16.0])[kind]
    t = torch.arange(128.0)
    wave = torch.sin(2 * torch.pi * t / period[:, None] + 6.28 * torch.rand(n, 1))
    counts = 1500 * wave + 300 * torch.randn(n, 128)
    return counts.round().unsqueeze(1), kind


signals, kinds = recordings(600)
model = BandPower().to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
losses = []
for step in range(200):
    pick = torch.randint(600, (48,))
    logits = model(signals[pick].to(dtype))
    loss = nn.functional.cross_entropy(logits.float(), kinds[pick])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
