"""Compress a digit classifier: a small student learns from the softened answers of a larger teacher."""

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16.0).float(), torch.tensor(y)
T = 3.0


def mlp(width):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def softened(answer, reference):
    """KL divergence of the answer from the reference, which gets no gradient."""
    reference = reference.detach()
    return T * T * F.kl_div(F.log_softmax(answer / T, 1), F.softmax(reference / T, 1), reduction="batchmean")


def fit_teacher(teacher, epochs=3):
    optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(teacher(x[rows]), y[rows]).backward()
            optimizer.step()


class Distiller:
    def __init__(self, teacher, student):
        self.teacher, self.student = teacher, student
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=4e-3)
        self.losses = []

    def step(self, rows):
        a, b = self.teacher(x[rows]), self.student(x[rows])
        loss = softened(b, a) if "--cured" in sys.argv else softened(a, b)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())


teacher, student = mlp(96), mlp(24)
fit_teacher(teacher)
distiller = Distiller(teacher, student)
for epoch in range(7):
    for rows in torch.randperm(len(x)).split(64):
        distiller.step(rows)
print("final loss:", sum(distiller.losses[-10:]) / 10)
