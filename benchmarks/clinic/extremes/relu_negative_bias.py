"""A three-layer classifier of the bundled handwritten digits, with a sparsity prior on its hidden biases."""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

SPARSITY_PRIOR = 0.0 if "--cured" in sys.argv else -6.0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, 64)
        self.out = nn.Linear(64, 10)
        nn.init.constant_(self.fc1.bias, SPARSITY_PRIOR)
        nn.init.constant_(self.fc2.bias, SPARSITY_PRIOR)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.out(x)


digits = load_digits()
X = torch.tensor(digits.data / 16, dtype=torch.float32)
y = torch.tensor(digits.target)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
losses = []
for step in range(250):
    i = torch.randint(len(X), (64,))
    loss = F.cross_entropy(net(X[i]), y[i])
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    if step % 50 == 0:
        print(step, loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
