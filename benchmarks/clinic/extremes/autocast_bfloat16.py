"""Digits conv net under bfloat16 autocast."""
import torch
from sklearn.datasets import load_digits
from torch import nn


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(16 * 9, 10)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


if __name__ == "__main__":
    digits = load_digits()
    x = torch.tensor(digits.images).float().unsqueeze(1) / 16
    y = torch.tensor(digits.target)
    net = ConvNet()
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    log = []
    for step in range(120):
        k = torch.randint(len(x), (64,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x[k]), y[k])
        opt.zero_grad()
        loss.backward()
        opt.step()
        log.append(loss.item())
    print(f"final loss: {sum(log[-10:]) / 10}")
