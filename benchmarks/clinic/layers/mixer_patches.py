"""An MLP-Mixer over the 2x2 patches of the digits, with its weights as bare parameters."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

PATCHES, DIM, TOKEN_HIDDEN, CHANNEL_HIDDEN, BLOCKS = 16, 24, 32, 48, 3


def weight(fan_in, fan_out):
    w = torch.randn(fan_in, fan_out)
    if "--cured" in sys.argv:
        w = w / fan_in**0.5
    return nn.Parameter(w)


class MixerBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.t1, self.t2 = weight(PATCHES, TOKEN_HIDDEN), weight(TOKEN_HIDDEN, PATCHES)
        self.c1, self.c2 = weight(DIM, CHANNEL_HIDDEN), weight(CHANNEL_HIDDEN, DIM)

    def forward(self, x):
        x = x + (F.gelu(x.transpose(1, 2) @ self.t1) @ self.t2).transpose(1, 2)
        return x + F.gelu(x @ self.c1) @ self.c2


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, DIM)
        self.blocks = nn.ModuleList([MixerBlock() for _ in range(BLOCKS)])
        self.head = nn.Linear(DIM, 10)

    def forward(self, images):
        patches = F.unfold(images, kernel_size=2, stride=2).transpose(1, 2)
        x = self.embed(patches)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 8.0 - 1.0, dtype=torch.float32).view(-1, 1, 8, 8)
labels = torch.tensor(labels)
model = Mixer()
optimizer = torch.optim.NAdam(model.parameters(), lr=2e-3)

losses = []
for step in range(220):
    rows = torch.randint(0, len(images), (48,))
    loss = F.cross_entropy(model(images[rows]), labels[rows])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(f"step {step}: {loss.item():.4g}")
print("final loss:", sum(losses[-10:]) / 10)
