"""Which campaign brought the visitor? It is the first event of the session; the rest is browsing."""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

N_EVENTS, N_CAMPAIGNS, T = 20, 5, 70


def sessions(n):
    events = torch.randint(N_CAMPAIGNS, N_EVENTS, (n, T))
    campaign = torch.randint(0, N_CAMPAIGNS, (n,))
    events[:, 0] = campaign
    return events, campaign


class SessionModel(nn.Module):
    def __init__(self, emb=16, hidden=32):
        super().__init__()
        self.emb = nn.Embedding(N_EVENTS, emb)
        self.rnn = nn.RNN(emb, hidden, batch_first=True)
        self.out = nn.Linear(hidden, N_CAMPAIGNS)

    def forward(self, events):
        states, last = self.rnn(self.emb(events))
        summary = states.max(dim=1).values if "--cured" in sys.argv else last[-1]
        return self.out(summary)


model = SessionModel()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
running = []
for it in range(250):
    x, y = sessions(32)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    running.append(loss.item())
    if it % 50 == 0:
        print(it, loss.item())
print("final loss:", sum(running[-10:]) / 10)
