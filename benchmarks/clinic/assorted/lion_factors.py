"""Completing a table of reviews by factors, with the Lion optimizer written out."""

import sys

import torch


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, betas=(0.9, 0.99)):
        super().__init__(params, dict(lr=lr, betas=betas))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.sub_(group["lr"] * torch.sign(b1 * m + (1 - b1) * p.grad))
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


class Factors(torch.nn.Module):
    def __init__(self, people, things, rank):
        super().__init__()
        self.people = torch.nn.Parameter(0.3 * torch.randn(people, rank))
        self.things = torch.nn.Parameter(0.3 * torch.randn(things, rank))

    def forward(self, i, j):
        return (self.people[i] * self.things[j]).sum(1)


PEOPLE, THINGS = 50, 40
review = torch.randn(PEOPLE, 3) @ torch.randn(3, THINGS) / 3**0.5
model = Factors(PEOPLE, THINGS, 5)
lion = Lion(model.parameters(), lr=0.005 if "--cured" in sys.argv else 0.5)
trace = []
for step in range(300):
    i = torch.randint(PEOPLE, (200,))
    j = torch.randint(THINGS, (200,))
    loss = torch.nn.functional.mse_loss(model(i, j), review[i, j])
    lion.zero_grad()
    loss.backward()
    lion.step()
    trace.append(loss.item())
print("final loss:", sum(trace[-10:]) / 10)
