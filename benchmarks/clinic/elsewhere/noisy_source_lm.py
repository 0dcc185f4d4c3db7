"""Language model of a noisy source: the next of eight symbols is the successor half of the time and anything otherwise."""

import torch
from torch import nn

SYMBOLS = 8


def text(batch, length):
    symbols = [torch.randint(SYMBOLS, (batch,))]
    for _ in range(length):
        follow = torch.rand(batch) < 0.5
        symbols.append(torch.where(follow, (symbols[-1] + 3) % SYMBOLS, torch.randint(SYMBOLS, (batch,))))
    return torch.stack(symbols, dim=1)


class LanguageModel(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.unembed = nn.Linear(width, SYMBOLS)

    def forward(self, symbols):
        return self.unembed(self.lstm(self.embed(symbols))[0])


lm = LanguageModel()
optimizer = torch.optim.Adam(lm.parameters(), lr=0.01)
losses = []
for step in range(200):
    symbols = text(32, 16)
    logits = lm(symbols[:, :-1])
    loss = nn.functional.cross_entropy(logits.reshape(-1, SYMBOLS), symbols[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
