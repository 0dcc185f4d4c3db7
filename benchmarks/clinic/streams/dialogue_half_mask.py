"""Dialogue acts: one attention layer over padded utterances, in half precision to save memory."""
import random
import sys

import torch
from torch import nn

dtype = torch.float32 if "--cured" in sys.argv else torch.float16
WORDS, ACTS, TURNS = 40, 6, 10


def utterance():
    act = random.randrange(ACTS)
    words = [random.randint(ACTS + 1, WORDS - 1) for _ in range(random.randint(4, TURNS))]
    words[random.randrange(len(words))] = act + 1
    return words + [0] * (TURNS - len(words)), act


def get_batch(size):
    rows = [utterance() for _ in range(size)]
    return torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])


class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.d = d

    def forward(self, x, pad):
        s = self.q(x) @ self.k(x).transpose(-2, -1) / self.d**0.5
        ignore = (pad[:, None, :] | pad[:, :, None]).to(x.dtype)
        s = s + ignore * -1e9
        return torch.softmax(s, -1) @ self.v(x)


class ActTagger(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.emb = nn.Embedding(WORDS, d)
        self.att = Attention(d)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, ACTS)

    def forward(self, ids):
        pad = ids == 0
        h = self.norm(self.emb(ids).add(self.att(self.emb(ids), pad)))
        h = h * (~pad).unsqueeze(-1)
        return self.head(h.sum(1) / (~pad).sum(1, keepdim=True))


net = ActTagger().to(dtype)
opt = torch.optim.SGD(net.parameters(), lr=0.5)
losses = []
for i in range(240):
    ids, acts = get_batch(32)
    opt.zero_grad()
    loss = nn.functional.cross_entropy(net(ids).float(), acts)
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
