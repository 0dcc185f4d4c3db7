"""Balance a pole by gradients through its equations of motion: short episodes first, then full ones."""

import sys

import torch
from torch import nn

DT, PULL = 0.1, 4.0
CLIP = 1.0 if "--cured" in sys.argv else None


class Controller(nn.Module):
    def __init__(self):
        super().__init__()
        self.sense = nn.Linear(2, 8, bias=False)
        self.force = nn.Linear(8, 1, bias=False)

    def forward(self, angle, speed):
        return self.force(self.sense(torch.cat([angle, speed], dim=1)))


def episode(controller, length, n=32):
    angle, speed = 0.2 * torch.randn(n, 1), 0.2 * torch.randn(n, 1)
    cost = 0.0
    for _ in range(length):
        push = controller(angle, speed)
        speed = speed + DT * (PULL * angle + push)
        angle = angle + DT * speed
        cost = cost + (angle.pow(2) + 0.1 * speed.pow(2) + 0.01 * push.pow(2)).mean()
    return cost / length


controller = Controller()
optimizer = torch.optim.SGD(controller.parameters(), lr=0.03)
costs = []
for step in range(240):
    loss = episode(controller, 4 if step < 100 else 40)
    optimizer.zero_grad()
    loss.backward()
    if CLIP is not None:
        nn.utils.clip_grad_norm_(controller.parameters(), CLIP)
    optimizer.step()
    costs.append(loss.item())
    if step % 40 == 0:
        print(step, costs[-1])
print("final loss:", sum(costs[-10:]) / 10)
