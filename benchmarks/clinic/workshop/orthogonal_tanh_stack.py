"""Twenty-four tanh layers without any normalisation or skips: orthogonal weights make it trainable."""
import torch
from sklearn.datasets import load_digits
from torch import nn

DEPTH, WIDTH = 24, 64


def orthogonal(n_in, n_out, gain):
    layer = nn.Linear(n_in, n_out)
    nn.init.orthogonal_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)
    return layer


layers = []
for k in range(DEPTH):
    layers += [orthogonal(64 if k == 0 else WIDTH, WIDTH, 1.05), nn.Tanh()]
tower = nn.Sequential(*layers)
readout = orthogonal(WIDTH, 10, 1.0)

x, y = load_digits(return_X_y=True)
x = torch.tensor((x - x.mean(0)) / (x.std(0) + 1.0), dtype=torch.float32)
y = torch.tensor(y)
params = [*tower.parameters(), *readout.parameters()]
velocity = [torch.zeros_like(p) for p in params]
trace = []
for step in range(260):
    pick = torch.randint(0, len(x), (48,))
    loss = nn.functional.cross_entropy(readout(tower(x[pick])), y[pick])
    grads = torch.autograd.grad(loss, params)
    with torch.no_grad():
        for p, v, g in zip(params, velocity, grads):
            v.mul_(0.9).add_(g)
            p.sub_(0.01 * v)
    trace.append(loss.item())
print("final loss:", sum(trace[-10:]) / 10)
