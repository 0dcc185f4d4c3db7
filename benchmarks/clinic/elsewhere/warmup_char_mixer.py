"""Next-symbol prediction on a periodic alphabet stream with an MLP mixer over the context, AdamW and linear warm-up."""

import sys

import torch
from torch import nn

VOCAB, CONTEXT, STEPS, WARMUP = 12, 6, 200, 500
if "--cured" in sys.argv:
    WARMUP = 20


def stream(count):
    start = torch.randint(VOCAB, (count, 1))
    stride = torch.randint(1, 4, (count, 1))
    symbols = (start + stride * torch.arange(CONTEXT + 1)) % VOCAB
    return symbols[:, :-1], symbols[:, -1]


class ContextMixer(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width)
        self.mix = nn.Linear(CONTEXT * width, 64)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, VOCAB)

    def forward(self, tokens):
        return self.head(self.norm(self.mix(self.embed(tokens).flatten(1)).relu()))


model = ContextMixer()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) // WARMUP))

recent = []
for step in range(STEPS):
    context, following = stream(128)
    loss = nn.functional.cross_entropy(model(context), following)
    loss.backward()
    optimizer.step()
    warmup.step()
    optimizer.zero_grad()
    recent = (recent + [loss.item()])[-10:]
print(f"final loss: {sum(recent) / len(recent)}")
