"""Sequence labelling with a GRU: short sentences in long padded batches, the loss is masked."""
import torch
from torch import nn

VOCAB, LABELS, MAXLEN = 30, 5, 40


def make_batch(n=32):
    tokens = torch.zeros(n, MAXLEN, dtype=torch.long)
    lengths = torch.randint(3, 9, (n,))
    for i, length in enumerate(lengths):
        tokens[i, :length] = torch.randint(1, VOCAB, (int(length),))
    previous = torch.cat([torch.zeros(n, 1, dtype=torch.long), tokens[:, :-1]], dim=1)
    labels = (tokens // 6 + previous // 15) % LABELS
    return {"tokens": tokens, "labels": labels, "mask": (tokens != 0).float()}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 24)
        self.gru = nn.GRU(24, 48, batch_first=True)
        self.tag = nn.Linear(48, LABELS)

    def forward(self, tokens):
        return self.tag(self.gru(self.embed(tokens))[0])


tagger = Tagger()
optimizer = torch.optim.Adam(tagger.parameters(), lr=0.01)
losses = []
for step in range(220):
    batch = make_batch()
    logits = tagger(batch["tokens"])
    each = nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
    loss = (each * batch["mask"]).sum() / batch["mask"].sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
