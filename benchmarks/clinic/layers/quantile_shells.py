"""Three concentric Gaussian shells, a functional two-hidden-layer net with plain tensors, momentum by hand."""

import sys

import torch
from sklearn.datasets import make_gaussian_quantiles

x, y = make_gaussian_quantiles(n_samples=1500, n_features=3, n_classes=3)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def init(rows, cols):
    if "--cured" in sys.argv:
        return torch.randn(rows, cols) * (2.0 / rows) ** 0.5
    return torch.full((rows, cols), 1.0 / rows)


params = {
    "w1": init(3, 32), "b1": torch.zeros(32),
    "w2": init(32, 32), "b2": torch.zeros(32),
    "w3": init(32, 3), "b3": torch.zeros(3),
}
velocity = {}
for name, p in params.items():
    p.requires_grad_(True)
    velocity[name] = torch.zeros_like(p)


def forward(x):
    h = torch.tanh(x @ params["w1"] + params["b1"])
    h = torch.tanh(h @ params["w2"] + params["b2"])
    return h @ params["w3"] + params["b3"]


losses = []
for step in range(400):
    rows = torch.randint(0, len(x), (64,))
    loss = torch.nn.functional.cross_entropy(forward(x[rows]), y[rows])
    grads = torch.autograd.grad(loss, list(params.values()))
    with torch.no_grad():
        for (name, p), g in zip(params.items(), grads):
            velocity[name].mul_(0.9).add_(g)
            p.sub_(0.1 * velocity[name])
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
