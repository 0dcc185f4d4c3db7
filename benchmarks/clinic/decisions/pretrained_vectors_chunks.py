"""Chunking with fixed pre-trained word vectors: embedding kept as it is, convolution and tag layer trained by Nesterov SGD."""

import torch
from torch import nn
from torch.nn import functional as F

WORDS, TAGS, DIM = 300, 4, 32
kind = torch.randint(TAGS, (WORDS,))
vectors = torch.randn(TAGS, DIM)[kind] + 0.5 * torch.randn(WORDS, DIM)  # stands in for GloVe


def text(n, length=12):
    ids = torch.randint(WORDS, (n, length))
    tag = kind[ids]
    inside = F.pad(tag[:, :-1] == 2, (1, 0))  # whatever follows a tag-2 word belongs to it
    return ids, torch.where(inside, torch.full_like(tag, 2), tag)


class Chunker(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(vectors, freeze=True)
        self.window = nn.Conv1d(DIM, 40, 3, padding=1)
        self.tags = nn.Conv1d(40, TAGS, 1)

    def forward(self, ids):
        return self.tags(F.relu(self.window(self.words(ids).transpose(1, 2))))


chunker = Chunker()
trainable = [p for p in chunker.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(trainable, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
losses = []
for step in range(200):
    ids, tags = text(16)
    loss = F.cross_entropy(chunker(ids), tags)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
