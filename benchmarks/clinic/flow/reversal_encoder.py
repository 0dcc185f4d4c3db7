"""Read a sequence backwards: eight pre-norm transformer layers."""

import torch
from torch import nn

VOCAB, LENGTH, DIM = 6, 8, 32


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Embedding(VOCAB, DIM)
        self.pos = nn.Parameter(torch.randn(LENGTH, DIM) * 0.5)
        layer = nn.TransformerEncoderLayer(DIM, 4, 64, dropout=0.0, norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(
            layer, num_layers=8, norm=nn.LayerNorm(DIM), enable_nested_tensor=False
        )
        self.head = nn.Linear(DIM, VOCAB)

    def forward(self, ids):
        return self.head(self.encoder(self.tok(ids) + self.pos))


model = Encoder()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for step in range(200):
    ids = torch.randint(0, VOCAB, (32, LENGTH))
    answer = ids.flip(1)  # read the sequence backwards
    loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), answer.flatten())
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
