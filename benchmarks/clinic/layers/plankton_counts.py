"""Plankton per sample: a Poisson regression net on depth, temperature, salinity and light."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def survey(n=1500):
    depth = 10 + 2000 * torch.rand(n)  # m
    temperature = 20 - depth / 150 + torch.randn(n)  # C
    salinity = 33 + 2 * torch.rand(n)  # g/kg
    light = 1200 * torch.exp(-depth / 400)  # W/m2
    log_rate = 0.5 + light / 500 + 0.3 * (salinity - 34) - 0.05 * (temperature - 12)
    features = torch.stack([depth, temperature, salinity, light], dim=1)
    return features, torch.poisson(torch.exp(log_rate))


def build(inputs):
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))


def main():
    features, counts = survey()
    if "--cured" in sys.argv:
        features = (features - features.mean(dim=0)) / features.std(dim=0)
    train, held_out = random_split(TensorDataset(features, counts), [1300, 200])
    net = build(features.shape[1])
    criterion = nn.PoissonNLLLoss(log_input=True, full=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    losses = []
    for epoch in range(6):
        for x, y in DataLoader(train, batch_size=50, shuffle=True):
            loss = criterion(net(x).squeeze(1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            x, y = held_out[:]
            print(f"epoch {epoch}: held out {criterion(net(x).squeeze(1), y).item():.3f}")
    print("final loss:", sum(losses[-10:]) / 10)


main()
