"""Knowledge distillation in two stages: a wide teacher first, then a thin and deep student learns from its soft answers."""
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn, optim

TEMPERATURE = 2.0


def thin_and_deep(width: int = 32, depth: int = 9) -> nn.Module:
    blocks = []
    size = 64
    for _ in range(depth):
        blocks.append(nn.Linear(size, width))
        blocks.append(nn.Sigmoid())
        size = width
    return nn.Sequential(*blocks, nn.Linear(size, 10))


def batches(x, y, steps, size=128):
    for _ in range(steps):
        i = torch.randint(len(x), (size,))
        yield x[i], y[i]


def train_teacher(teacher, x, y):
    opt = optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9)
    for n, (xb, yb) in enumerate(batches(x, y, 150), 1):
        opt.zero_grad()
        loss = F.cross_entropy(teacher(xb), yb)
        loss.backward()
        opt.step()
        if n % 30 == 0:
            print(f"teacher {n:3d}: loss {loss.item():.4f}")


def train_student(student, teacher, x, y):
    opt = optim.SGD(student.parameters(), lr=0.2, momentum=0.9)
    for n, (xb, _) in enumerate(batches(x, y, 250), 1):
        with torch.no_grad():
            soft = F.softmax(teacher(xb) / TEMPERATURE, dim=1)
        opt.zero_grad()
        loss = F.cross_entropy(student(xb) / TEMPERATURE, soft)
        loss.backward()
        opt.step()
        if n % 25 == 0:
            print(f"student {n:3d}: loss {loss.item():.4f}")


def main():
    torch.manual_seed(11)
    data = load_digits()
    x = torch.tensor(data.data / 16.0, dtype=torch.float32)
    y = torch.tensor(data.target)
    teacher = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    student = thin_and_deep()
    train_teacher(teacher, x, y)
    train_student(student, teacher.eval(), x, y)
    agree = (student(x).argmax(1) == teacher(x).argmax(1)).float().mean()
    print(f"student agrees with teacher on {agree:.1%}")


main()
