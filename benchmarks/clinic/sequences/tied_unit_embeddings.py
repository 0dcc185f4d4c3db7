"""A causal language model whose output layer shares the unscaled embedding, so that it starts far above chance."""

import torch
from torch import nn

VOCAB, DIM, LENGTH = 24, 48, 16
successor = torch.stack([torch.randperm(VOCAB) for _ in range(2)])


def stream(n=24):
    x = torch.empty(n, LENGTH + 1, dtype=torch.long)
    x[:, 0] = torch.randint(VOCAB, (n,))
    for t in range(LENGTH):
        x[:, t + 1] = successor[torch.randint(2, (n,)) * (torch.rand(n) < 0.2), x[:, t]]
    return x


class TiedLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCAB, DIM)
        self.wpe = nn.Parameter(0.02 * torch.randn(LENGTH, DIM))
        self.block = nn.TransformerEncoderLayer(DIM, 4, 96, dropout=0.0, norm_first=True, batch_first=True)
        self.ln_f = nn.LayerNorm(DIM)
        self.lm_head = nn.Linear(DIM, VOCAB, bias=False)
        self.lm_head.weight = self.wte.weight
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, x):
        h = self.block(self.wte(x) + self.wpe, src_mask=self.mask, is_causal=True)
        return self.lm_head(self.ln_f(h))


lm = TiedLM()
optimizer = torch.optim.AdamW(lm.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
losses = []
for it in range(250):
    x = stream()
    loss = nn.functional.cross_entropy(lm(x[:, :-1]).reshape(-1, VOCAB), x[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
