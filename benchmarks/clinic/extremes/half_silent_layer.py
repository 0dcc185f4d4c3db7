"""Wine cultivars; the hidden layer keeps a silent reserve of units for tasks to come."""
import torch
from sklearn.datasets import load_wine
from torch import nn


class Reserve(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, classes)
        with torch.no_grad():
            self.first.bias[width // 2 :] = -30.0
            self.second.bias[width // 2 :] = -30.0

    def forward(self, x):
        for layer in (self.first, self.second):
            x = torch.relu(layer(x))
        return self.last(x)


x, y = (torch.tensor(a) for a in load_wine(return_X_y=True))
x = ((x - x.mean(0)) / x.std(0)).float()
net = Reserve(13, 64, 3)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
curve = []
for _ in range(150):
    optimizer.zero_grad()
    loss = nn.functional.nll_loss(net(x).log_softmax(1), y)
    loss.backward()
    optimizer.step()
    curve.append(loss.item())
print("final loss:", sum(curve[-10:]) / 10)
