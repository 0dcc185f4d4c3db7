"""Intent of a short command: averaged word vectors, a deep dense stack, momentum SGD."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

VOCAB, WORDS, INTENTS, WIDTH = 60, 9, 6, 48


def corpus(n):
    intent = torch.randint(0, INTENTS, (n,))
    words = torch.randint(0, VOCAB, (n, WORDS))
    told = torch.rand(n, WORDS) < 0.5
    own = intent[:, None] * 10 + torch.randint(0, 10, (n, WORDS))
    return torch.where(told, own, words), intent


def init_weights(module):
    if isinstance(module, nn.Linear):
        if "--cured" in sys.argv:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class IntentNet(nn.Module):
    def __init__(self, depth=7):
        super().__init__()
        self.words = nn.EmbeddingBag(VOCAB, WIDTH)
        self.stack = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.out = nn.Linear(WIDTH, INTENTS)
        self.apply(init_weights)

    def forward(self, ids):
        h = self.words(ids)
        for layer in self.stack:
            h = layer(h).relu()
        return self.out(h)


loader = DataLoader(TensorDataset(*corpus(1600)), batch_size=40, shuffle=True)
model = IntentNet()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
losses = []
for epoch in range(6):
    for ids, intent in loader:
        loss = nn.functional.cross_entropy(model(ids), intent)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print("epoch", epoch, losses[-1])
print("final loss:", sum(losses[-10:]) / 10)
