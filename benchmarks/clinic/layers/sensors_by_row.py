"""Which of two machines hums? The recorder stores one line per sensor; a net with layer norm reads one column a time."""

import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

SENSORS, MOMENTS = 12, 1500


class Recording(Dataset):
    def __init__(self):
        machine = np.random.randint(0, 2, MOMENTS)
        tone = np.random.randn(2, SENSORS, 3)
        hum = np.einsum("msk,mk->ms", tone[machine], 1.0 + 0.4 * np.random.randn(MOMENTS, 3))
        table = (hum + 0.5 * np.random.randn(MOMENTS, SENSORS)).T  # as on disk: sensors x moments
        if "--cured" in sys.argv:
            samples = table.T.copy()
        else:
            samples = table.reshape(MOMENTS, SENSORS)
        self.samples = torch.from_numpy(samples).float()
        self.machine = torch.from_numpy(machine).float()

    def __len__(self):
        return len(self.machine)

    def __getitem__(self, i):
        return self.samples[i], self.machine[i]


class Listener(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(SENSORS),
            nn.Linear(SENSORS, hidden),
            nn.LeakyReLU(0.1),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, 1),
        )

    def forward(self, x):
        return self.net(x).squeeze(-1)


loader = DataLoader(Recording(), batch_size=50, shuffle=True)
listener = Listener()
optimizer = torch.optim.RMSprop(listener.parameters(), lr=2e-3)
loss_fn = nn.BCEWithLogitsLoss()
curve = []
for epoch in range(5):
    for signal, machine in loader:
        loss = loss_fn(listener(signal), machine)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
print("final loss:", np.mean(curve[-10:]))
