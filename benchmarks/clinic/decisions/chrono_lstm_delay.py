"""Remember a cue over forty noisy steps; LSTM biases follow the chrono initialisation (Tallec & Ollivier)."""

import sys

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS, CUES, HIDDEN = 40, 4, 24


def chrono_(lstm, longest):
    h = lstm.hidden_size
    spread = torch.log(torch.empty(h).uniform_(longest / 2, longest - 1))
    with torch.no_grad():
        lstm.bias_ih_l0.zero_()
        lstm.bias_hh_l0.zero_()
        if "--cured" in sys.argv:
            lstm.bias_ih_l0[h : 2 * h] = spread
            lstm.bias_ih_l0[:h] = -spread
        else:
            lstm.bias_ih_l0[:h] = spread
            lstm.bias_ih_l0[h : 2 * h] = -spread


def episode(n):
    cue = torch.randint(CUES, (n,))
    x = 0.3 * torch.randn(n, STEPS, CUES + 1)
    x[:, :3, :CUES] += 2.0 * F.one_hot(cue, CUES)[:, None]
    x[:, -1, CUES] = 1.0
    return x, cue


class Recall(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(CUES + 1, HIDDEN, batch_first=True)
        chrono_(self.lstm, STEPS)
        self.answer = nn.Linear(HIDDEN, CUES)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.answer(h[-1])


net = Recall()
opt = torch.optim.Adam(net.parameters(), lr=1e-2)
losses = []
for it in range(150):
    x, cue = episode(32)
    loss = F.cross_entropy(net(x), cue)
    opt.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    losses.append(loss.item())
    if it % 30 == 0:
        print(it, round(losses[-1], 4))
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
