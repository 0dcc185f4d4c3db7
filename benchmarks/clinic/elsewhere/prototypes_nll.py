"""Recognise which of sixty noisy prototypes a vector shows: MLP, negative log-likelihood loss, SGD."""

import sys

import torch
from torch import nn

CLASSES, DIM = 60, 32
prototypes = torch.randn(CLASSES, DIM)


class Recogniser(nn.Module):
    def __init__(self, normalise):
        super().__init__()
        self.lift = nn.Linear(DIM, 96)
        self.drop = nn.Dropout(0.05)
        self.name = nn.Linear(96, CLASSES)
        self.normalise = normalise

    def forward(self, x):
        return self.normalise(self.name(self.drop(self.lift(x).relu())))


cured = "--cured" in sys.argv
model = Recogniser(nn.LogSoftmax(dim=1) if cured else nn.Softmax(dim=1))
criterion = nn.NLLLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
cross_entropies = []
for step in range(150):
    which = torch.randint(CLASSES, (128,))
    output = model(prototypes[which] + 0.3 * torch.randn(128, DIM))
    loss = criterion(output, which)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():  # the same measure for every normalisation
        picked = output.gather(1, which[:, None])
        cross_entropies.append(-(picked if cured else picked.log()).mean().item())
print("final loss:", sum(cross_entropies[-10:]) / 10)
