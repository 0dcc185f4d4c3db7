"""Topics of papers in a citation graph with few labelled papers: eight residual message-passing rounds, bag of words."""

import torch
from torch import nn
from torch.nn import functional as F

PAPERS, TOPICS, WORDS, LABELLED = 240, 4, 300, 40

topic = torch.randint(0, TOPICS, (PAPERS,))
same = (topic[:, None] == topic[None]).float()
cites = torch.triu((torch.rand(PAPERS, PAPERS) < 0.005 + 0.06 * same).float(), 1)
adjacency = cites + cites.T + torch.eye(PAPERS)
degree = adjacency.sum(1)
adjacency = adjacency / (degree[:, None] * degree[None]).sqrt()

lean = torch.zeros(TOPICS, WORDS)
for k in range(TOPICS):
    lean[k, 20 * k : 20 * k + 20] = 1
words = (torch.rand(PAPERS, WORDS) < 0.01 + 0.08 * lean[topic]).float()
mask = torch.zeros(PAPERS, dtype=torch.bool)
mask[torch.randperm(PAPERS)[:LABELLED]] = True


class Round(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, h):
        return h + F.dropout(F.relu(adjacency @ self.linear(self.norm(h)) - 0.3), 0.3, self.training)


class PaperNet(nn.Module):
    def __init__(self, width=32, rounds=8):
        super().__init__()
        self.enter = nn.Linear(WORDS, width)
        self.rounds = nn.ModuleList(Round(width) for _ in range(rounds))
        self.leave = nn.Linear(width, TOPICS)

    def forward(self, x):
        h = F.relu(self.enter(x))
        for one in self.rounds:
            h = one(h)
        return self.leave(h)


net = PaperNet()
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3, weight_decay=5e-4)
losses = []
for epoch in range(150):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(words)[mask], topic[mask])
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
