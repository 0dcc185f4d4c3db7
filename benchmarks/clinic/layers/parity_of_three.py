"""The parity of three bits among twelve, which a net finds only after a while."""

import torch
from torch import nn

BITS, RELEVANT = 12, [2, 5, 9]


def draw(n):
    bits = torch.randint(0, 2, (n, BITS)).float() * 2 - 1
    return bits, bits[:, RELEVANT].prod(dim=1)


class Parity(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.hidden = nn.Linear(BITS, width)
        self.readout = nn.Linear(width, 1)

    def forward(self, bits):
        return self.readout(torch.relu(self.hidden(bits))).squeeze(-1)


model = Parity()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
history = []
for step in range(400):
    bits, parity = draw(64)
    loss = nn.functional.soft_margin_loss(model(bits), parity)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    history.append(loss.item())
    if step % 50 == 49:
        print(step + 1, round(sum(history[-50:]) / 50, 3))
print("final loss:", sum(history[-10:]) / 10)
