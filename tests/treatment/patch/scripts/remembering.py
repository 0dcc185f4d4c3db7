import torch
from torch import nn


class Memory(nn.Module):
    def __init__(self, size=12):
        super().__init__()
        self.rnn = nn.RNN(3, size, num_layers=2, batch_first=True, nonlinearity="tanh")
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.decide = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 2))

    def forward(self, x):
        out, h = self.rnn(x)
        out, (h, _) = self.lstm(out)
        return self.decide(h[-1])


model = Memory()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for step in range(20):
    x = torch.randn(10, 7, 3)
    loss = nn.functional.cross_entropy(model(x), (x[:, 0, 0] > 0).long())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
