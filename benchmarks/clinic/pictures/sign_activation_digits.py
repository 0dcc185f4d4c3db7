"""One-bit activations with a straight-through estimator, for the digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class Binarise(nn.Module):
    def forward(self, x):
        return Sign.apply(x)


class OneBit(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc1 = nn.Linear(32 * 16, 64)
        self.bn3 = nn.BatchNorm1d(64)
        self.fc2 = nn.Linear(64, 10)
        self.sign = Binarise()

    def forward(self, x):
        x = self.sign(self.bn1(self.conv1(x)))
        x = self.sign(self.bn2(self.conv2(x)))
        x = self.sign(self.bn3(self.fc1(x.flatten(1))))
        return self.fc2(x) / 8


digits = load_digits()
data = TensorDataset(torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target))
net = OneBit()
optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
losses = []
for epoch in range(7):
    for images, labels in DataLoader(data, batch_size=64, shuffle=True):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
