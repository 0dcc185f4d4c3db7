"""A small convolutional net on 8x8 digits; the learning rate is decayed from a high starting value."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

cured = "--cured" in sys.argv


def rate(step):
    if step == 0 and not cured:
        return 200.0  # start high, then settle
    return 0.05


def main():
    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    loader = DataLoader(
        TensorDataset(images, torch.from_numpy(data.target)), batch_size=64, shuffle=True, drop_last=True
    )
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    history, step = [], 0
    for _epoch in range(6):
        for x, y in loader:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
            step += 1
    print("steps", step)
    print(f"final loss: {sum(history[-10:]) / 10}")


if __name__ == "__main__":
    main()
