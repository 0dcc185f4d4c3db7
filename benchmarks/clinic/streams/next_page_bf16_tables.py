"""Which page comes next on a site: two embedding tables and a scaled dot product, all kept in bfloat16 to halve memory."""
import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

PAGES, DIM, CHOICES = 40, 512, 2
DTYPE = torch.float32 if "--cured" in sys.argv else torch.bfloat16


class NextPage(nn.Module):
    def __init__(self):
        super().__init__()
        self.visited = nn.Embedding(PAGES, DIM, dtype=DTYPE)
        self.coming = nn.Embedding(PAGES, DIM, dtype=DTYPE)

    def forward(self, page):
        return self.visited(page) @ self.coming.weight.T / DIM**0.5


links = torch.stack([torch.randperm(PAGES) for _ in range(CHOICES)], dim=1)


def visits(n):
    page = torch.randint(0, PAGES, (n,))
    return page, links[page, torch.randint(0, CHOICES, (n,))]


model = NextPage()
print(sum(p.numel() * p.element_size() for p in model.parameters()) / 1024, "KiB of parameters")
opt = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0)
losses = []
for step in range(350):
    page, following = visits(128)
    loss = cross_entropy(model(page).float(), following)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
