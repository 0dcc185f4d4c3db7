"""Recall task: the first symbol of a sequence has to be named at its end; what lies between is noise."""
import torch
from torch import nn

SYMBOLS, LENGTH, HIDDEN = 4, 40, 48


def make_batch(size, generator):
    first = torch.randint(SYMBOLS, (size,), generator=generator)
    x = 0.3 * torch.randn(size, LENGTH, SYMBOLS, generator=generator)
    x[:, 0] += 2.0 * nn.functional.one_hot(first, SYMBOLS)
    return x, first


class Recaller(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(SYMBOLS, HIDDEN, batch_first=True)
        self.readout = nn.Linear(HIDDEN, SYMBOLS)

    def forward(self, x):
        states, _ = self.rnn(x)
        return self.readout(states[:, -1])


def run(n_steps=300):
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    model = Recaller()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = []
    for step in range(n_steps):
        x, target = make_batch(64, g)
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
        if (step + 1) % 20 == 0:
            print(f"{step + 1:>5}  loss {sum(history[-20:]) / 20:.4f}")
    return history


if __name__ == "__main__":
    run()
