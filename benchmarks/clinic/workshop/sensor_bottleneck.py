import sys

import numpy as np
import torch
from sklearn.datasets import make_low_rank_matrix
from torch import nn

# 40 sensors driven by some four hidden quantities
data = make_low_rank_matrix(n_samples=1500, n_features=40, effective_rank=4, tail_strength=0.05)
data = torch.from_numpy((data - data.mean(0)) / data.std()).float()


def init_weights(m):
    if isinstance(m, nn.Linear):
        if "--cured" in sys.argv:
            nn.init.xavier_normal_(m.weight)
        else:
            nn.init.normal_(m.weight, mean=0.0, std=0.02)
        nn.init.zeros_(m.bias)


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(40, 32), nn.Tanh(),
            nn.Linear(32, 24), nn.Tanh(),
            nn.Linear(24, 8),
        )
        self.decoder = nn.Sequential(
            nn.Linear(8, 24), nn.Tanh(),
            nn.Linear(24, 32), nn.Tanh(),
            nn.Linear(32, 40),
        )
        self.apply(init_weights)

    def forward(self, x):
        return self.decoder(self.encoder(x))


ae = AutoEncoder()
mse = nn.MSELoss()
optim = torch.optim.SGD(ae.parameters(), lr=0.3, momentum=0.8)
step_losses = []
for epoch in range(14):
    for part in torch.split(data[torch.randperm(1500)], 60):
        loss = mse(ae(part), part)
        optim.zero_grad()
        loss.backward()
        optim.step()
        step_losses.append(loss.item())
    if epoch % 4 == 0:
        print(epoch, np.mean(step_losses[-25:]))
print("final loss:", np.mean(step_losses[-10:]))
