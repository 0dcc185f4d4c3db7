"""A convolutional classifier with a long learning-rate warm-up from almost nothing."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 8, 3)
        self.c2 = nn.Conv2d(8, 16, 3)
        self.fc = nn.Linear(16 * 16, 10)

    def forward(self, x):
        x = torch.sigmoid(self.c1(x))
        x = torch.relu(self.c2(x))
        return self.fc(x.flatten(1))


digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
net = Cnn()
opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
warm = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1.0, 10 ** (-5 + 5 * s / 180)))
losses = []
for step in range(320):
    i = torch.randint(len(images), (64,))
    loss = nn.functional.cross_entropy(net(images[i]), labels[i])
    opt.zero_grad()
    loss.backward()
    opt.step()
    warm.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
