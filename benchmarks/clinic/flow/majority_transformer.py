"""Which letter is most frequent in a string? A small transformer written by hand, initialised like GPT-2."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

cured = "--cured" in sys.argv
VOCAB, LENGTH, DIM = 4, 15, 32


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def attend(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(F.scaled_dot_product_attention(q, k, v))

    def feed(self, x):
        return self.down(F.gelu(self.up(x)))

    def forward(self, x):
        if cured:
            x = x + self.attend(x)
            return x + self.feed(x)
        x = self.attend(x)
        return self.feed(x)


class Classifier(nn.Module):
    def __init__(self, depth=6):
        super().__init__()
        self.tok = nn.Embedding(VOCAB, DIM)
        self.blocks = nn.ModuleList(Block(DIM) for _ in range(depth))
        self.norm = nn.LayerNorm(DIM) if cured else nn.Identity()
        self.head = nn.Linear(DIM, VOCAB)
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02)
            if isinstance(m, nn.Linear):
                nn.init.zeros_(m.bias)

    def forward(self, ids):
        x = self.tok(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean(1)))


model = Classifier()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
losses = []
for step in range(160):
    top = torch.randint(0, VOCAB, (64,))
    ids = torch.randint(0, VOCAB, (64, LENGTH))
    ids = torch.where(torch.rand(64, LENGTH) < 0.35, top[:, None], ids)
    answer = F.one_hot(ids, VOCAB).sum(1).argmax(1)
    loss = F.cross_entropy(model(ids), answer)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
