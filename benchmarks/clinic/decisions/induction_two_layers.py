"""A two-layer causal transformer meets an induction task: a random motif, repeated; guess the second half."""
import torch
from torch import nn
import torch.nn.functional as F

V, HALF, D = 10, 8, 32


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.ff = nn.Sequential(nn.Linear(D, 64), nn.GELU(), nn.Linear(64, D))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.ff(self.ln2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(V, D), nn.Embedding(2 * HALF, D)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.ln = nn.LayerNorm(D)
        nn.init.normal_(self.tok.weight, std=0.02)
        nn.init.normal_(self.pos.weight, std=0.02)

    def forward(self, ids):
        x = self.tok(ids) + self.pos.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.ln(x) @ self.tok.weight.T


model = GPT()
opt = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.95))
losses = []
for step in range(240):
    motif = torch.randint(V, (32, HALF))
    ids = torch.cat([motif, motif], 1)
    logits = model(ids[:, :-1])
    loss = F.cross_entropy(logits[:, HALF:].flatten(0, 1), ids[:, HALF + 1 :].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    if step % 25 == 0:
        print(step, round(loss.item(), 4))
print("final loss:", sum(losses[-10:]) / 10)
