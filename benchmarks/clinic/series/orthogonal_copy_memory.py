"""Remember three symbols over a long pause with a hand-written recurrence whose matrix starts orthogonal."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

SYMBOLS, PAUSE, HIDDEN = 4, 40, 64


class Norming(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(SYMBOLS + 1, HIDDEN, bias=False)
        self.rec = nn.Linear(HIDDEN, HIDDEN, bias=False)
        nn.init.orthogonal_(self.rec.weight)
        self.bias = nn.Parameter(torch.zeros(HIDDEN))
        self.out = nn.Linear(HIDDEN, 3 * SYMBOLS)

    def forward(self, x):
        h = torch.zeros(x.shape[0], HIDDEN)
        for step in x.unbind(1):
            z = self.rec(h) + self.inp(step)
            h = z.sign() * torch.relu(z.abs() + self.bias)  # modReLU
        return self.out(h).view(-1, 3, SYMBOLS)


net = Norming()
optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3)
losses = []
for it in range(250):
    told = torch.randint(0, SYMBOLS, (32, 3))
    tokens = torch.cat([told, torch.full((32, PAUSE), SYMBOLS)], 1)
    logits = net(one_hot(tokens, SYMBOLS + 1).float())
    loss = cross_entropy(logits.flatten(0, 1), told.flatten())
    net.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
