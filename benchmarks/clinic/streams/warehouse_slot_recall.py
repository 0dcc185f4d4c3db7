"""A shelf holds items in slots; asked for a slot's colour code, attention must find the slot and read the item."""
import sys

import torch
from torch import nn

SLOTS, ITEMS, DIM, ON_SHELF = 14, 8, 1024, 10
scale = DIM**-0.5 if "--cured" in sys.argv else 1.0


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Embedding(SLOTS, DIM)
        self.key = nn.Embedding(SLOTS, DIM)
        self.value = nn.Embedding(ITEMS, 32)
        self.read = nn.Linear(32, ITEMS)

    def forward(self, slots, items, asked):
        q = self.query(asked).unsqueeze(1)
        k = self.key(slots)
        weights = torch.softmax(q @ k.transpose(1, 2) * scale, dim=-1)
        return self.read((weights @ self.value(items)).squeeze(1))


def batch(n=48):
    slots = torch.rand(n, SLOTS).argsort(1)[:, :ON_SHELF]
    items = torch.randint(0, ITEMS, (n, ON_SHELF))
    which = torch.randint(0, ON_SHELF, (n, 1))
    return slots, items, slots.gather(1, which)[:, 0], items.gather(1, which)[:, 0]


model = Lookup()
opt = torch.optim.NAdam(model.parameters(), lr=1e-3)
log = []
for step in range(250):
    slots, items, asked, answer = batch()
    loss = nn.functional.cross_entropy(model(slots, items, asked), answer)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
    log.append(loss.item())
print("final loss: %.5f" % (sum(log[-10:]) / 10))
