"""Postcode digits with a deep conv-bn-relu net; the size of the flat features is found by a dry run."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def conv(c_in, c_out, stride=1):
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)
    )


class DigitNet(nn.Module):
    def __init__(self, image_size=(1, 8, 8)):
        super().__init__()
        self.features = nn.Sequential(
            conv(1, 10), conv(10, 10), conv(10, 12, 2), *[conv(12, 12) for _ in range(9)]
        )
        self.classifier = nn.Linear(self._flat(image_size), 10)

    @torch.no_grad()
    def _flat(self, size):
        self.eval()
        n = self.features(torch.zeros(1, *size)).numel()
        if "--cured" in sys.argv:
            self.train()
        return n

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def fit(model, loader, epochs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    criterion = nn.CrossEntropyLoss()
    losses = []
    for _ in range(epochs):
        for images, labels in loader:
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
    return losses


x, y = load_digits(return_X_y=True)
x = torch.from_numpy(x).float().view(-1, 1, 8, 8).sub(4.9).div(6.0)
loader = DataLoader(TensorDataset(x, torch.from_numpy(y)), 64, shuffle=True)
losses = fit(DigitNet(), loader, 4)
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
