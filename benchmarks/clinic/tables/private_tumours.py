"""Differentially private descent: per-patient gradients by torch.func, clipped, summed and blurred with noise."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

CLIP, NOISE, LR = 0.5, 0.8, 0.4

x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor(StandardScaler().fit_transform(x), dtype=torch.float32)
y = torch.tensor(y, dtype=torch.float32)


class Tumour(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(30, 16)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x))).squeeze(-1)


model = Tumour()
sgd = torch.optim.SGD(model.parameters(), lr=LR)


def patient_loss(params, xi, yi):
    return nn.functional.binary_cross_entropy_with_logits(functional_call(model, params, (xi,)), yi)


per_patient = vmap(grad_and_value(patient_loss), in_dims=(None, 0, 0))
losses = []
for step in range(200):
    rows = torch.randperm(len(x))[:64]
    named = dict(model.named_parameters())
    grads, values = per_patient({k: p.detach() for k, p in named.items()}, x[rows], y[rows])
    lengths = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
    factor = (CLIP / (lengths + 1e-6)).clamp(max=1.0)
    for k, p in named.items():
        summed = torch.einsum("n,n...->...", factor, grads[k])
        p.grad = (summed + NOISE * CLIP * torch.randn_like(p)) / len(rows)
    sgd.step()
    losses.append(values.mean().item())
print("final loss:", sum(losses[-10:]) / 10)
