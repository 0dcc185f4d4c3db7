"""A student follows a teacher who is replaced by another now and then; the rate restarts with each."""

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

PERIOD, TEACHERS = 90, 4


def new_teacher():
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3)).requires_grad_(False)


class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 64)
        self.second = nn.Linear(64, 64)
        self.last = nn.Linear(64, 3)

    def forward(self, x):
        x = torch.nn.functional.mish(self.first(x))
        return self.last(torch.nn.functional.mish(self.second(x)))


def main():
    student = Student()
    optimizer = torch.optim.RAdam(student.parameters(), lr=0.01)
    schedule = CosineAnnealingWarmRestarts(optimizer, T_0=PERIOD)
    losses = []
    for number in range(TEACHERS):
        teacher = new_teacher()
        for _ in range(PERIOD):
            x = torch.randn(64, 8)
            loss = nn.functional.smooth_l1_loss(student(x), 4 * teacher(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"teacher {number}: from {losses[-PERIOD]:.3f} to {losses[-1]:.4f}")
    print("final loss:", sum(losses[-10:]) / 10)


main()
