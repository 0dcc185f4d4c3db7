#!/usr/bin/env python3
# Lookup with a small transformer encoder: the letter at the front of the sequence occurs once more in it; the answer is where.
import math
import random

import torch
import torch.nn as nn

VOCAB = 8
LEN = 8


def batch(n):
    seqs, answers = [], []
    for _ in range(n):
        body = random.sample(range(VOCAB), LEN - 1)
        at = random.randrange(LEN - 2)
        seqs.append([body[at]] + body)
        answers.append(at)
    return torch.tensor(seqs), torch.tensor(answers)


class Encoder(nn.Module):
    def __init__(self, d=48, heads=4, layers=3):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, d)
        self.position = nn.Parameter(torch.randn(LEN, d) / math.sqrt(d))
        block = nn.TransformerEncoderLayer(d, heads, 2 * d, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, layers, norm=nn.LayerNorm(d), enable_nested_tensor=False)
        self.out = nn.Linear(d, LEN - 2)

    def forward(self, tokens):
        h = self.encoder(self.embed(tokens) + self.position)
        return self.out(h[:, 0])


if __name__ == "__main__":
    random.seed(0)
    torch.manual_seed(0)
    net = Encoder()
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    warmup = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1.0, (s + 1) / 20))
    loss_fn = nn.CrossEntropyLoss()
    for it in range(240):
        tokens, answer = batch(64)
        opt.zero_grad()
        loss = loss_fn(net(tokens), answer)
        loss.backward()
        opt.step()
        warmup.step()
        if it % 30 == 29:
            print("iter %3d train_loss=%.3f" % (it + 1, loss.item()))
