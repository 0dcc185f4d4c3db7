"""Knowledge distillation: a wide teacher learns the digits, then a narrow student matches its softened outputs."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

TEMPERATURE = 3.0


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Linear(64, width)
        self.b = nn.Linear(width, 10)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


def distil(student, teacher, x):
    target = F.softmax(teacher(x).detach() / TEMPERATURE, dim=1)
    return F.kl_div(F.log_softmax(student(x) / TEMPERATURE, dim=1), target, reduction="batchmean")


def main():
    data, target = load_digits(return_X_y=True)
    data, target = torch.tensor(data, dtype=torch.float32) / 16, torch.tensor(target)

    teacher = Mlp(128)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(120):
        rows = torch.randint(len(data), (64,))
        loss = F.cross_entropy(teacher(data[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    student = Mlp(24)
    optimizer = torch.optim.Adam(student.parameters(), lr=5e-3)
    losses = []
    for _ in range(200):
        rows = torch.randint(len(data), (64,))
        loss = distil(student, teacher, data[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print("final loss:", sum(losses[-10:]) / 10)


if __name__ == "__main__":
    main()
