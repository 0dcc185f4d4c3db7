"""Forecast the next value of a noisy oscillator with bare convolution kernels, no modules of torch's own."""

import sys

import torch
import torch.nn.functional as F

CHANNELS = 16


class Kernels(torch.nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [(CHANNELS, 1, 3), (CHANNELS, CHANNELS, 3), (CHANNELS, CHANNELS, 3), (CHANNELS, CHANNELS, 3)]
        self.weights = torch.nn.ParameterList()
        for out, into, k in sizes:
            w = torch.randn(out, into, k)
            if "--cured" in sys.argv:
                w = w * (2 / (into * k)) ** 0.5
            self.weights.append(torch.nn.Parameter(w))
        self.last = torch.nn.Linear(CHANNELS, 1)

    def forward(self, x):
        for i, w in enumerate(self.weights):
            x = F.leaky_relu(F.conv1d(x, w, dilation=2**i), 0.1)
        return self.last(x[..., -1])


def oscillator(n, length=33):
    phase, freq = 6.28 * torch.rand(n, 1), 0.2 + 0.3 * torch.rand(n, 1)
    x = torch.sin(phase + freq * torch.arange(length)) + 0.05 * torch.randn(n, length)
    return x[:, None, :-1], x[:, -1:]


net = Kernels()
opt = torch.optim.SGD(net.parameters(), lr=0.02)
seen = []
for step in range(300):
    past, future = oscillator(40)
    loss = (net(past) - future).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    seen.append(loss.item())
print("final loss:", sum(seen[-10:]) / 10)
