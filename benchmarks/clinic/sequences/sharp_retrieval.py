"""Retrieve a note by a corrupted cue: cosine attention with a low temperature that ends nearly one-hot."""

import torch
import torch.nn.functional as F
from torch import nn


class Retriever(nn.Module):
    def __init__(self, dim=20, width=32):
        super().__init__()
        self.cue = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
        self.note = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
        self.log_temperature = nn.Parameter(torch.tensor(-2.3))

    def forward(self, cues, notes):
        q = F.normalize(self.cue(cues), dim=-1)
        k = F.normalize(self.note(notes), dim=-1)
        attention = (q @ k.T / self.log_temperature.exp()).softmax(dim=-1)
        return attention, attention @ notes


mixing = torch.randn(20, 20) / 20**0.5
model = Retriever()
opt = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.5)
losses, sharpness = [], []
for step in range(350):
    notes = torch.randn(32, 20)
    cues = (notes + 0.1 * torch.randn_like(notes)) @ mixing
    attention, found = model(cues, notes)
    loss = F.mse_loss(found, notes)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    sharpness.append(attention.max(dim=-1).values.mean().item())
print(f"sharpness: {sharpness[0]:.2f} -> {sharpness[-1]:.2f}")
print("final loss:", sum(losses[-10:]) / 10)
