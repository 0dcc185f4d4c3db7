"""Neural network written by hand after a numpy blog post; only the gradients come from torch."""
import sys

import torch
from sklearn.datasets import make_classification
from torch import nn

X, t = make_classification(n_samples=1200, n_features=20, n_informative=12, n_redundant=0, n_classes=4,
                           n_clusters_per_class=1, class_sep=2.0, random_state=7)
X = torch.tensor(X, dtype=torch.float32)
X = (X - X.min(0).values) / (X.max(0).values - X.min(0).values)
T = torch.eye(4)[torch.tensor(t)]


def weights(fan_in, fan_out):
    w = torch.rand(fan_in, fan_out)
    if "--cured" in sys.argv:
        w = (w - 0.5) * 2 * (6 / fan_in) ** 0.5
    return nn.Parameter(w)


class Layer(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.W = weights(fan_in, fan_out)
        self.b = nn.Parameter(torch.zeros(fan_out))

    def forward(self, a):
        return torch.sigmoid(a @ self.W + self.b)


class Network(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(Layer(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, a):
        for layer in self.layers:
            a = layer(a)
        return a


network = Network([20, 50, 50, 4])
eta, costs = 3.0, []
for step in range(400):
    i = torch.randint(0, len(X), (40,))
    cost = ((network(X[i]) - T[i]) ** 2).sum(1).mean()
    network.zero_grad()
    cost.backward()
    with torch.no_grad():
        for p in network.parameters():
            p -= eta * p.grad
    costs.append(cost.item())
    if step % 100 == 0:
        print(step, cost.item())
print("final loss:", sum(costs[-10:]) / 10)
