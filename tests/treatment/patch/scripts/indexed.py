import torch
from torch import nn


class PINN(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.linears = nn.ModuleList()
        for i in range(len(layers) - 1):
            self.linears.append(nn.Linear(layers[i], layers[i + 1]))
        self.activation = nn.Tanh()
        for layer in self.linears:
            nn.init.xavier_normal_(layer.weight, gain=1.0)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        a = x
        for i in range(len(self.linears) - 1):
            z = self.linears[i](a)
            a = self.activation(z)
        return self.linears[-1](a)


net = PINN([2, 20, 20, 20, 1])
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for it in range(20):
    x = torch.rand(64, 2)
    loss = ((net(x) - torch.sin(x.sum(1, keepdim=True))) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
