"""Digits conv net with static loss scaling (as for mixed precision); gradients are unscaled by hand."""
import torch
from sklearn.datasets import load_digits
from torch import nn

LOSS_SCALE = 65536.0


class Scaler:
    def __init__(self, parameters, factor):
        self.parameters, self.factor = list(parameters), factor

    def backward(self, loss):
        (loss * self.factor).backward()

    def unscale(self):
        for p in self.parameters:
            if p.grad is not None:
                p.grad.div_(self.factor)


data = load_digits()
image = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
label = torch.tensor(data.target)
net = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 16, 10))
scaler = Scaler(net.parameters(), LOSS_SCALE)
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
losses = []
for step in range(160):
    index = torch.randint(len(image), (64,))
    loss = nn.functional.cross_entropy(net(image[index]), label[index])
    opt.zero_grad()
    scaler.backward(loss)
    scaler.unscale()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
