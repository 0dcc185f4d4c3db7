"""Token tagging with nn.TransformerEncoder and the schedule of "Attention Is All You Need"."""

import sys

import torch
from torch import nn

D_MODEL, WARMUP, VOCAB, TAGS = 32, 60, 30, 5
BASE_LR = 1.0 if "--cured" in sys.argv else 1e-3


def noam(step):
    step += 1
    return 0.5 * D_MODEL**-0.5 * min(step**-0.5, step * WARMUP**-1.5)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D_MODEL)
        layer = nn.TransformerEncoderLayer(D_MODEL, nhead=2, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.tags = nn.Linear(D_MODEL, TAGS)

    def forward(self, tokens):
        return self.tags(self.encoder(self.embed(tokens)))


lexicon = torch.randint(TAGS, (VOCAB,))
model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), lr=BASE_LR, betas=(0.9, 0.98), eps=1e-9)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, noam)
criterion = nn.CrossEntropyLoss()
losses = []
for step in range(200):
    tokens = torch.randint(VOCAB, (16, 12))
    tags = lexicon[tokens]
    loss = criterion(model(tokens).reshape(-1, TAGS), tags.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    losses.append(loss.item())
    if (step + 1) % 50 == 0:
        print(f"step {step + 1}  loss {loss.item():.3f}")
print("final loss:", sum(losses[-10:]) / 10)
