"""Distil a teacher into a small student that runs in float16; the optimizer works on float32 copies of its weights."""
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

T, BATCH, ACCUMULATE = 60.0, 256, 4
SCALE = 2.0**15 if "--cured" in sys.argv else 1.0

x, y = load_digits(return_X_y=True)
x = torch.tensor(x / 16, dtype=torch.float32)
y = torch.tensor(y)

# ---- teacher: ridge regression on random features, solved at once
features = torch.tanh(x @ torch.randn(64, 400) * 0.5 + torch.randn(400))
onehot = F.one_hot(y, 10).float() - 0.1
solved = torch.linalg.solve(features.T @ features + 5 * torch.eye(400), features.T @ onehot)
teacher_logits = 12 * (features @ solved)
print("teacher accuracy:", (teacher_logits.argmax(1) == y).float().mean().item())
soft = F.softmax(teacher_logits / T, dim=1)

# ---- student
student = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)).half()
master = [p.detach().clone().float().requires_grad_() for p in student.parameters()]
opt = torch.optim.Adam(master, lr=1e-2)
x16, soft16 = x.half(), soft.half()

kept = []
for step in range(150):
    student.zero_grad()
    hard = 0.0
    for _ in range(ACCUMULATE):
        rows = torch.randint(0, len(x), (BATCH,))
        logits = student(x16[rows])
        loss = F.mse_loss(F.softmax(logits / T, dim=1), soft16[rows]) / ACCUMULATE
        (loss * SCALE).backward()
        hard += F.cross_entropy(logits.detach().float(), y[rows]).item() / ACCUMULATE
    for m, p in zip(master, student.parameters()):
        m.grad = p.grad.float() / SCALE
    opt.step()
    with torch.no_grad():
        for m, p in zip(master, student.parameters()):
            p.copy_(m)
    kept.append(hard)
print("final loss:", sum(kept[-10:]) / 10)
