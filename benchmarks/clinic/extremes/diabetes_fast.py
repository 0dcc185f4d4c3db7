"""Disease progression (the diabetes set) by a two-hidden-layer regressor, plain SGD."""

import sys

import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import scale
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LR = 0.01 if "--cured" in sys.argv else 1.0


def build():
    return nn.Sequential(nn.Linear(10, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 1))


def train(model, loader, epochs):
    opt = torch.optim.SGD(model.parameters(), lr=LR)
    seen = []
    for _ in range(epochs):
        for batch in loader:
            pred = model(batch[0])
            loss = nn.functional.mse_loss(pred, batch[1])
            opt.zero_grad()
            loss.backward()
            opt.step()
            seen.append(loss.detach())
    return torch.stack(seen)


if __name__ == "__main__":
    X, y = load_diabetes(return_X_y=True)
    X = torch.tensor(scale(X), dtype=torch.float32)
    y = torch.tensor(scale(y), dtype=torch.float32).unsqueeze(1)
    curve = train(
        build(), DataLoader(TensorDataset(X, y), batch_size=442 // 6, shuffle=True, drop_last=True), epochs=40
    )
    print("final loss:", curve[-10:].mean().item())
