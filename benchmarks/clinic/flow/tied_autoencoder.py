"""An autoencoder whose decoder is the transpose of its encoder."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Tied(nn.Module):
    def __init__(self, sizes=(64, 40, 16)):
        super().__init__()
        self.enc1 = nn.Linear(sizes[0], sizes[1])
        self.enc2 = nn.Linear(sizes[1], sizes[2])
        self.bias2 = nn.Parameter(torch.zeros(sizes[1]))
        self.bias1 = nn.Parameter(torch.zeros(sizes[0]))

    def forward(self, x):
        code = self.enc2(torch.sigmoid(self.enc1(x)))
        h = torch.sigmoid(F.linear(code, self.enc2.weight.t(), self.bias2))
        return F.linear(h, self.enc1.weight.t(), self.bias1)


pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 16
model = Tied()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
losses = []
for step in range(400):
    batch = pixels[torch.randint(len(pixels), (128,))]
    loss = F.mse_loss(model(batch), batch)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
