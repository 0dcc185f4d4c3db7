"""A word model with tied input and output embeddings; the dictionary is far larger than the recipes need."""

import torch
from torch import nn

VOCAB, USED, DIM = 1200, 40, 48
follows = torch.stack([torch.randperm(USED)[:2] for _ in range(USED)])


def recipes(n, length=16):
    words = [torch.randint(0, USED, (n,))]
    for _ in range(length):
        pick = (torch.rand(n) < 0.1).long()
        words.append(follows[words[-1], pick])
    return torch.stack(words, 1)


class WordModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, DIM)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.rnn = nn.LSTM(DIM, DIM, batch_first=True)
        self.norm = nn.LayerNorm(DIM)
        self.decode = nn.Linear(DIM, VOCAB, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, words):
        states, _ = self.rnn(self.embed(words))
        return self.decode(self.norm(states))


model = WordModel()
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, betas=(0.9, 0.98))
losses = []
for step in range(160):
    batch = recipes(24)
    logits = model(batch[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
