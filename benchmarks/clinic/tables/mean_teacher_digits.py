"""Mean teacher: few labelled digits, and consistency with an average of the student's own past weights."""

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y)
order = torch.randperm(len(x))
labelled, unlabelled = order[:200], order[200:]

student = nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(0.3), nn.Linear(80, 40), nn.ReLU(), nn.Linear(40, 10))
teacher = copy.deepcopy(student).eval()
for p in teacher.parameters():
    p.requires_grad_(False)

optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)


def jitter(batch):
    return batch + 0.1 * torch.randn_like(batch)


def follow(decay):
    with torch.no_grad():
        for slow, fast in zip(teacher.parameters(), student.parameters()):
            slow.lerp_(fast, 1 - decay)


history = []
for step in range(350):
    few = labelled[torch.randint(len(labelled), (32,))]
    many = unlabelled[torch.randint(len(unlabelled), (64,))]
    supervised = F.cross_entropy(student(jitter(x[few])), y[few])
    target = teacher(jitter(x[many])).softmax(1)
    consistency = F.mse_loss(student(jitter(x[many])).softmax(1), target)
    weight = 10.0 * min(1.0, step / 150)
    loss = supervised + weight * consistency
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    follow(min(0.99, 1 - 1 / (step + 1)))
    history.append(loss.item())
print("final loss:", sum(history[-10:]) / 10)
