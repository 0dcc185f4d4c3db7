"""Two towers, as in CLIP: each picture is to find its own caption among those of the batch."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

N, BATCH = 1024, 32
topic = torch.randn(N, 8)
pictures = torch.tanh(topic @ torch.randn(8, 40)) + 0.05 * torch.randn(N, 40)
captions = torch.relu(topic @ torch.randn(8, 30)) + 0.05 * torch.randn(N, 30)

if "--cured" in sys.argv:
    loader = DataLoader(TensorDataset(pictures, captions), BATCH, shuffle=True)
else:
    picture_loader = DataLoader(pictures, BATCH, shuffle=True)
    caption_loader = DataLoader(captions, BATCH, shuffle=True)


def batches():
    return loader if "--cured" in sys.argv else zip(picture_loader, caption_loader)


class Tower(nn.Module):
    def __init__(self, n_in):
        super().__init__()
        self.body = nn.Linear(n_in, 64)
        self.out = nn.Linear(64, 16)

    def forward(self, x):
        return nn.functional.normalize(self.out(torch.relu(self.body(x))), dim=-1)


see, read = Tower(40), Tower(30)
log_scale = nn.Parameter(torch.tensor(2.0))
optimizer = torch.optim.AdamW([*see.parameters(), *read.parameters(), log_scale], lr=2e-3, weight_decay=0.01)
losses = []
for epoch in range(8):
    for picture, caption in batches():
        similarity = log_scale.exp() * see(picture) @ read(caption).T
        own = torch.arange(len(picture))
        loss = (
            nn.functional.cross_entropy(similarity, own) + nn.functional.cross_entropy(similarity.T, own)
        ) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: {sum(losses[-32:]) / 32:.3f}")
print("final loss:", sum(losses[-10:]) / 10)
