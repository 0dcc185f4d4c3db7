"""Elman's simple recurrent network, as in the textbook: which of four letters opened the string?."""
import sys

import torch

T, H = 10, 20
squash = torch.tanh if "--cured" in sys.argv else torch.sigmoid


class Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.W = torch.nn.Parameter(torch.empty(H, H))
        self.U = torch.nn.Parameter(torch.empty(4, H))
        self.b = torch.nn.Parameter(torch.zeros(H))
        torch.nn.init.orthogonal_(self.W)
        torch.nn.init.xavier_normal_(self.U)

    def forward(self, x, h):
        return squash(x @ self.U + h @ self.W + self.b)


class Elman(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = Cell()
        self.V = torch.nn.Linear(H, 4)

    def forward(self, x):
        h = x.new_zeros(len(x), H)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.V(h)


def strings(n):
    symbols = torch.randint(0, 4, (n, T))
    return torch.nn.functional.one_hot(symbols, 4).float(), symbols[:, 0]


net = Elman()
opt = torch.optim.Adam(net.parameters(), lr=0.004)
losses = []
for i in range(350):
    x, y = strings(32)
    loss = torch.nn.functional.cross_entropy(net(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
