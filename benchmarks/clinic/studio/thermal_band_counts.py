"""Land cover from the counts of six thermal bands, a tanh net."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

COVERS = ("water", "forest", "field", "town")


class Pixels(Dataset):
    def __init__(self, n=1500):
        signature = torch.randn(len(COVERS), 6) * 60
        self.cover = torch.randint(len(COVERS), (n,))
        dark = torch.tensor([9100.0, 8700.0, 9600.0, 8900.0, 9300.0, 9000.0])
        self.counts = dark + signature[self.cover] + 15 * torch.randn(n, 6)
        if "--cured" in sys.argv:
            self.counts = (self.counts - self.counts.mean(0)) / self.counts.std(0)

    def __len__(self):
        return len(self.cover)

    def __getitem__(self, i):
        return self.counts[i], self.cover[i]


class CoverNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(6, 32)
        self.layer2 = nn.Linear(32, 24)
        self.output = nn.Linear(24, len(COVERS))

    def forward(self, counts):
        h = torch.tanh(self.layer1(counts))
        h = torch.tanh(self.layer2(h))
        return self.output(h)


class Trainer:
    def __init__(self, model, data):
        self.model, self.loader = model, DataLoader(data, batch_size=30, shuffle=True)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        self.losses = []

    def run(self, epochs):
        for _ in range(epochs):
            for counts, cover in self.loader:
                self.optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(counts), cover)
                loss.backward()
                self.optimizer.step()
                self.losses.append(loss.item())


trainer = Trainer(CoverNet(), Pixels())
trainer.run(5)
print("final loss:", sum(trainer.losses[-10:]) / 10)
