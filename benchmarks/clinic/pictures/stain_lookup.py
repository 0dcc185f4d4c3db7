"""A slide of six tagged tiles: given the tag that is asked for, name the stain of its tile. Attention pooling."""

import sys
from math import log

import torch
import torch.nn.functional as F
from torch import nn

TILES, PIX, CLASSES = 6, 32, 4


class AttentionPool(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        start = 1 / 0.07
        self.logit_scale = nn.Parameter(torch.tensor(log(start) if "--cured" in sys.argv else start))

    def forward(self, asked, tiles):
        q = F.normalize(self.to_q(asked), dim=-1)
        k = F.normalize(self.to_k(tiles), dim=-1)
        scores = self.logit_scale.exp() * torch.einsum("bd,btd->bt", q, k)
        return torch.einsum("bt,btd->bd", scores.softmax(dim=1), self.to_v(tiles))


class SlideModel(nn.Module):
    def __init__(self, dim=48):
        super().__init__()
        self.embed_asked = nn.Linear(TILES, dim)
        self.embed_tile = nn.Sequential(nn.Linear(PIX, dim), nn.LayerNorm(dim))
        self.pool = AttentionPool(dim)
        self.classify = nn.Linear(dim, CLASSES)

    def forward(self, asked, tiles):
        return self.classify(self.pool(self.embed_asked(asked), self.embed_tile(tiles)))


tags = 2.0 * torch.randn(TILES, PIX)
stains = 1.5 * torch.randn(CLASSES, PIX)


def slides(n):
    stain = torch.randint(CLASSES, (n, TILES))
    tag = torch.rand(n, TILES).argsort(dim=1)
    where = torch.randint(TILES, (n,))
    tiles = stains[stain] + tags[tag] + 0.2 * torch.randn(n, TILES, PIX)
    rows = torch.arange(n)
    return F.one_hot(tag[rows, where], TILES).float(), tiles, stain[rows, where]


model = SlideModel()
opt = torch.optim.Adamax(model.parameters(), lr=1e-2)
trail = []
for _ in range(420):
    asked, tiles, y = slides(64)
    loss = F.cross_entropy(model(asked, tiles), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    trail.append(loss.item())
print(f"final loss: {sum(trail[-10:]) / 10:.5f}")
