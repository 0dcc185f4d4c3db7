"""Maximum likelihood for a hidden Markov model by gradient ascent: the forward algorithm, differentiated by autograd."""

import sys

import numpy as np
import torch
from torch import nn

STATES, SYMBOLS, LENGTH = 4, 36, 40
DTYPE = torch.float64 if "--cured" in sys.argv else torch.float32


def simulate(sequences):
    rng = np.random.default_rng()
    out = np.zeros((sequences, LENGTH), dtype=int)
    state = rng.integers(STATES, size=sequences)
    for t in range(LENGTH):
        out[:, t] = state * (SYMBOLS // STATES) + rng.integers(3, size=sequences)
        move = rng.random(sequences) < 0.1
        state = np.where(move, (state + 1) % STATES, state)
    return torch.from_numpy(out)


class HMM(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(STATES, dtype=DTYPE))
        self.transition = nn.Parameter(torch.eye(STATES, dtype=DTYPE))
        self.emission = nn.Parameter(torch.randn(STATES, SYMBOLS, dtype=DTYPE))

    def likelihood(self, obs):
        A, B = self.transition.softmax(1), self.emission.softmax(1)
        alpha = self.start.softmax(0) * B[:, obs[:, 0]].T
        for t in range(1, obs.shape[1]):
            alpha = (alpha @ A) * B[:, obs[:, t]].T
        return alpha.sum(1)

    def forward(self, obs):
        return -(self.likelihood(obs) + torch.finfo(DTYPE).tiny).log().mean() / obs.shape[1]


corpus = simulate(256)
hmm = HMM()
optimizer = torch.optim.Adam(hmm.parameters(), lr=0.1)
history = []
for epoch in range(20):
    for obs in corpus[torch.randperm(len(corpus))].split(32):
        nll = hmm(obs)
        optimizer.zero_grad()
        nll.backward()
        optimizer.step()
        history.append(nll.item())
print("nats per symbol, chance", round(float(np.log(SYMBOLS)), 3))
print("final loss:", np.mean(history[-10:]))
