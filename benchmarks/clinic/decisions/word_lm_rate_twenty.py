"""The word language model of the PyTorch examples in small: SGD at 20, clip 0.25, state carried over between chunks."""

import random

import torch
from torch import nn

BPTT, BATCH = 12, 16
RULES = {
    "the": ["cat", "dog", "fox"], "cat": ["sat", "ran"], "dog": ["ran", "barked"], "fox": ["ran", "sat"],
    "sat": ["on"], "on": ["the", "a"], "a": ["mat", "hill"], "mat": ["<eos>"], "hill": ["<eos>"],
    "ran": ["over", "<eos>"], "over": ["a"], "barked": ["<eos>"], "<eos>": ["the"],
}  # fmt: skip
WORDS = sorted(RULES)


def corpus(n):
    word, ids = "<eos>", []
    for _ in range(n):
        word = random.choice(RULES[word])
        ids.append(WORDS.index(word))
    return torch.tensor(ids)


def repackage_hidden(h):
    return tuple(v.detach() for v in h)


class RNNModel(nn.Module):
    def __init__(self, nhid=32):
        super().__init__()
        self.encoder = nn.Embedding(len(WORDS), nhid)
        self.rnn = nn.LSTM(nhid, nhid, 2)
        self.drop = nn.Dropout(0.1)
        self.decoder = nn.Linear(nhid, len(WORDS))
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, ids, hidden):
        out, hidden = self.rnn(self.drop(self.encoder(ids)), hidden)
        return self.decoder(self.drop(out)), hidden


stream = corpus(BATCH * 2500)
stream = stream.view(BATCH, -1).t().contiguous()
model = RNNModel()
hidden = (torch.zeros(2, BATCH, 32), torch.zeros(2, BATCH, 32))
lr, losses = 20.0, []
for i in range(0, len(stream) - BPTT - 1, BPTT):
    model.zero_grad()
    hidden = repackage_hidden(hidden)
    out, hidden = model(stream[i : i + BPTT], hidden)
    loss = nn.functional.cross_entropy(out.flatten(0, 1), stream[i + 1 : i + 1 + BPTT].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(p.grad, alpha=-lr)
    losses.append(loss.item())
    if len(losses) == 140:
        lr /= 4
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
