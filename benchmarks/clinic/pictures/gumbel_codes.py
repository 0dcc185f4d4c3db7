"""A discrete autoencoder: eight categorical variables by Gumbel-softmax, temperature lowered as it trains."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import gumbel_softmax, binary_cross_entropy_with_logits as bce

VARIABLES, VALUES = 8, 10


class DiscreteVAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(64, 96), nn.ELU(), nn.Linear(96, VARIABLES * VALUES))
        self.dec = nn.Sequential(nn.Linear(VARIABLES * VALUES, 96), nn.ELU(), nn.Linear(96, 64))

    def forward(self, x, tau):
        logits = self.enc(x).view(-1, VARIABLES, VALUES)
        z = gumbel_softmax(logits, tau=tau, hard=True)
        q = logits.softmax(-1)
        kl = (q * (logits.log_softmax(-1) + torch.log(torch.tensor(float(VALUES))))).sum((1, 2)).mean()
        return self.dec(z.flatten(1)), kl


x = (torch.tensor(load_digits().data) > 7).float()
vae = DiscreteVAE()
opt = torch.optim.NAdam(vae.parameters(), lr=5e-3)
tau, trace = 1.0, []
for epoch in range(12):
    for rows in torch.randperm(len(x)).split(72):
        recon, kl = vae(x[rows], tau)
        nll = bce(recon, x[rows], reduction="sum") / len(rows)
        loss = nll + 0.1 * kl
        opt.zero_grad()
        loss.backward()
        opt.step()
        trace.append(loss.item())
    tau = max(0.3, tau * 0.9)
print("final loss:", sum(trace[-10:]) / 10)
