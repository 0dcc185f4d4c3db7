"""Backprop-free depth: four blocks, each with its own classifier, loss and optimizer; nothing flows between them."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class LocalBlock(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.LeakyReLU(0.1))
        self.judge = nn.Linear(n_out, 10)
        self.optimizer = torch.optim.RMSprop(self.parameters(), lr=1e-3)

    def learn(self, x, y):
        h = self.body(x)
        loss = F.cross_entropy(self.judge(h), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return h.detach(), loss.item()


def main():
    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy(x).float() / 16
    y = torch.from_numpy(y)
    blocks = nn.ModuleList([LocalBlock(64, 48), LocalBlock(48, 48), LocalBlock(48, 32), LocalBlock(32, 32)])
    last = []
    for epoch in range(6):
        for rows in torch.randperm(len(x)).split(50):
            h = x[rows]
            for block in blocks:
                h, loss = block.learn(h, y[rows])
            last.append(loss)
    print("final loss:", sum(last[-10:]) / 10)


if __name__ == "__main__":
    main()
