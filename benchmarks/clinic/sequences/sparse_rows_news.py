"""Topics of headlines from a hashed vocabulary of twenty thousand rows, with sparse embedding gradients."""

import torch
from torch import nn

BUCKETS, TOPICS, USED = 20_000, 5, 250

words = torch.randint(BUCKETS, (USED,))
leaning = torch.randint(TOPICS, (USED,))


def headlines(n=32, length=8):
    topic = torch.randint(TOPICS, (n, 1))
    weight = 1.0 + 5.0 * (leaning[None] == topic)
    return words[torch.multinomial(weight, length)], topic.squeeze(1)


class Topics(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(BUCKETS, 16, mode="mean", sparse=True)
        self.fc1 = nn.Linear(16, 32)
        self.fc2 = nn.Linear(32, TOPICS)

    def forward(self, ids):
        return self.fc2(torch.relu(self.fc1(self.bag(ids))))


model = Topics()
sparse = torch.optim.SparseAdam(list(model.bag.parameters()), lr=0.02)
dense = torch.optim.Adam([*model.fc1.parameters(), *model.fc2.parameters()], lr=3e-3)
losses = []
for step in range(350):
    ids, topic = headlines()
    loss = nn.functional.cross_entropy(model(ids), topic)
    sparse.zero_grad()
    dense.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
