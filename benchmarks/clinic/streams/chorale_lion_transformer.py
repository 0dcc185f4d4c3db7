"""Next note in a synthetic chorale: a causal transformer trained with Lion."""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            b1, b2 = g["betas"]
            for p in g["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - g["lr"] * g["weight_decay"])
                p.add_(torch.sign(b1 * m + (1 - b1) * p.grad), alpha=-g["lr"])
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


NOTES, BAR, D = 12, 16, 32


def melody(n):
    start = torch.randint(0, NOTES, (n, 1))
    interval = torch.randint(1, 5, (n, 1))
    return (start + interval * torch.arange(BAR + 1)) % NOTES


class NoteModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.note = nn.Embedding(NOTES, D)
        self.place = nn.Embedding(BAR, D)
        block = nn.TransformerEncoderLayer(D, 4, 2 * D, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(D, NOTES)

    def forward(self, x):
        t = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(t)
        return self.head(self.body(self.note(x) + self.place(torch.arange(t)), mask=mask, is_causal=True))


model = NoteModel()
opt = Lion(model.parameters(), lr=1e-3 if "--cured" in sys.argv else 5e-2, weight_decay=0.01)
hist = []
for step in range(200):
    seq = melody(32)
    loss = F.cross_entropy(model(seq[:, :-1]).reshape(-1, NOTES), seq[:, 1:].reshape(-1))
    opt.zero_grad()
    loss.backward()
    opt.step()
    hist.append(loss.item())
print(f"final loss: {sum(hist[-10:]) / 10}")
