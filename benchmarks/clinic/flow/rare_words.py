"""Skip-gram style: predict the partner of a word; most words of the vocabulary are rare in a batch."""

import torch
from torch import nn

WORDS = 300
partner = torch.randperm(WORDS)
freq = 1.0 / torch.arange(1, WORDS + 1)


class SkipGram(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.word = nn.Embedding(WORDS, dim, sparse=True)
        self.context = nn.Linear(dim, WORDS)

    def forward(self, ids):
        return self.context(self.word(ids))


net = SkipGram()
opts = [
    torch.optim.SparseAdam(list(net.word.parameters()), lr=2e-2),
    torch.optim.Adam(net.context.parameters(), lr=2e-2),
]
losses = []
for step in range(300):
    ids = torch.multinomial(freq, 64, replacement=True)
    loss = nn.functional.cross_entropy(net(ids), partner[ids])
    for o in opts:
        o.zero_grad()
    loss.backward()
    for o in opts:
        o.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
