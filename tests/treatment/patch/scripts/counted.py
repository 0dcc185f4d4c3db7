import torch
import torch.nn.functional as F
from torch import nn


class Deep(nn.Module):
    def __init__(self, dims, act=F.softplus):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(dims[:-1], dims[1:]))
        self.act = act

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.layers) - 1:
                x = self.act(x)
        return x


torch.manual_seed(0)
model = Deep([6, 10, 10, 10, 2])
optimizer = torch.optim.SGD(params=model.parameters(), lr=1e-1)
for step in range(20):
    x = torch.randn(25, 6)
    loss = F.cross_entropy(model(x), (x[:, 0] > 0).long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
