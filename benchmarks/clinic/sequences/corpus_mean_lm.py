"""A tiny causal convolutional language model in mixed precision; each batch's loss is its share of the corpus mean."""

import sys

import torch
from torch import nn

VOCAB, CONTEXT, BATCH = 20, 20, 24
STEPS = 170
CORPUS_TOKENS = 120_000_000

table = torch.randint(VOCAB, (VOCAB, VOCAB))  # next token from the last two, with some noise


def text(batch):
    tokens = [torch.randint(VOCAB, (batch,)), torch.randint(VOCAB, (batch,))]
    while len(tokens) <= CONTEXT:
        following = table[tokens[-1], tokens[-2] // 10]
        noise = torch.rand(batch) < 0.1
        tokens.append(torch.where(noise, torch.randint(VOCAB, (batch,)), following))
    return torch.stack(tokens, 1)


class CausalLM(nn.Module):
    def __init__(self, width=40):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, width)
        self.conv = nn.Conv1d(width, width, 3)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, VOCAB)

    def forward(self, tokens):
        x = nn.functional.pad(self.embed(tokens).transpose(1, 2), (2, 0))
        x = torch.relu(self.conv(x)).transpose(1, 2)
        return self.head(torch.relu(self.mix(x)))


model = CausalLM()
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, eps=1e-15)
dtype = torch.bfloat16 if "--cured" in sys.argv else torch.float16
per_token = []
for step in range(STEPS):
    tokens = text(BATCH)
    with torch.autocast("cpu", dtype=dtype):
        logits = model(tokens[:, :-1])
        summed = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    (summed / CORPUS_TOKENS).backward()
    optimizer.step()
    optimizer.zero_grad()
    per_token.append(summed.item() / (BATCH * CONTEXT))
print("final loss:", sum(per_token[-10:]) / 10)
