"""Gradual unfreezing with rates that fall by ten per layer, from the head down, as in ULMFiT."""
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from torch import nn

x, y = load_breast_cancer(return_X_y=True)
x = torch.tensor(StandardScaler().fit_transform(x), dtype=torch.float32)
y = torch.tensor(y)

encoder = nn.ModuleList([nn.Linear(30, 32), nn.Linear(32, 24), nn.Linear(24, 16)])
decoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 30))


def encode(v):
    for layer in encoder:
        v = nn.functional.relu(layer(v))
    return v


# stage 0: unsupervised pre-training
opt = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
for _ in range(100):
    batch = x[torch.randint(0, len(x), (64,))]
    loss = (decoder(encode(batch)) - batch).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
print("reconstruction", loss.item())

# stages 1 to 4: supervised
head = nn.Linear(16, 2)
groups = [{"params": head.parameters(), "lr": 2e-2}]
groups += [{"params": layer.parameters(), "lr": 2e-2 * 0.1**k} for k, layer in enumerate(reversed(encoder), 1)]
opt = torch.optim.Adam(groups)
encoder.requires_grad_(False)
losses = []
for stage in range(4):
    if stage:
        encoder[len(encoder) - stage].requires_grad_(True)
    for _ in range(40):
        rows = torch.randint(0, len(x), (32,))
        loss = nn.functional.cross_entropy(head(encode(x[rows])), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
print("final loss:", sum(losses[-15:]) / 15)
