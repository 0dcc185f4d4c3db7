"""Key-value reading with one attention layer by hand: which amount belonged to the ingredient asked for?"""

import sys

import torch
from torch import nn

INGREDIENTS, AMOUNTS, LINES, WIDTH = 16, 8, 14, 32
GAIN = WIDTH**-0.5 if "--cured" in sys.argv else 1.0


class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.wq = nn.Parameter(torch.randn(d, d) * GAIN)
        self.wk = nn.Parameter(torch.randn(d, d) * GAIN)

    def forward(self, query, lines):
        scores = torch.einsum("bd,bnd->bn", query @ self.wq, lines @ self.wk) / lines.shape[-1] ** 0.5
        return torch.softmax(scores, dim=-1)


class Recipe(nn.Module):
    def __init__(self):
        super().__init__()
        self.ingredient = nn.Embedding(INGREDIENTS, WIDTH)
        self.amount = nn.Embedding(AMOUNTS, WIDTH)
        self.question = nn.Embedding(INGREDIENTS, WIDTH)
        self.attention = Attention(WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, AMOUNTS)

    def forward(self, ingredients, amounts, asked):
        lines = self.ingredient(ingredients) + self.amount(amounts)
        weights = self.attention(self.question(asked), lines)
        return self.head(torch.einsum("bn,bnd->bd", weights, self.value(lines)))


def batch(n=64):
    ingredients = torch.rand(n, INGREDIENTS).argsort(1)[:, :LINES]
    amounts = torch.randint(AMOUNTS, (n, LINES))
    pick = torch.randint(LINES, (n, 1))
    return ingredients, amounts, ingredients.gather(1, pick)[:, 0], amounts.gather(1, pick)[:, 0]


model = Recipe()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for step in range(250):
    *inputs, target = batch()
    loss = nn.functional.cross_entropy(model(*inputs), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
