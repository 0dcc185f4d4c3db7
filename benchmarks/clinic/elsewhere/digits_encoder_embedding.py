"""Digits are encoded into a three-dimensional embedding, which a small classifier reads."""

import contextlib
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

context = contextlib.nullcontext if "--cured" in sys.argv else torch.no_grad

images, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
images = images.float() / 8 - 1

encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
classifier = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 10))
parameters = [*encoder.parameters(), *classifier.parameters()]
optimizer = torch.optim.Adam(parameters, lr=5e-3)


def run_step(rows):
    with context():
        embedding = encoder(images[rows])
    loss = F.cross_entropy(classifier(embedding), labels[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


losses = [run_step(torch.randint(len(images), (96,))) for _ in range(300)]
print("final loss:", sum(losses[-10:]) / 10)
