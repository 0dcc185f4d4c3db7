"""Denoising the digits with bfloat16 weights; momentum and the true weights are kept in float32."""

import torch
from sklearn.datasets import load_digits
from torch import nn

clean = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 96)
        self.outer = nn.Linear(96, 64)

    def forward(self, x):
        return self.outer(nn.functional.silu(self.inner(x)))


class MasterMomentum:
    def __init__(self, params, lr, momentum=0.9):
        self.params = list(params)
        self.masters = [p.detach().float().clone() for p in self.params]
        self.speeds = [torch.zeros_like(m) for m in self.masters]
        self.lr, self.momentum = lr, momentum

    @torch.no_grad()
    def step(self):
        for p, master, speed in zip(self.params, self.masters, self.speeds):
            speed.mul_(self.momentum).add_(p.grad.float())
            master.sub_(self.lr * speed)
            p.copy_(master)
            p.grad = None


model = Denoiser().bfloat16()
optimizer = MasterMomentum(model.parameters(), lr=0.3)
losses = []
for epoch in range(10):
    for batch in clean[torch.randperm(len(clean))].split(64):
        noisy = batch + 0.3 * torch.randn_like(batch)
        loss = nn.functional.mse_loss(model(noisy.bfloat16()).float(), batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
