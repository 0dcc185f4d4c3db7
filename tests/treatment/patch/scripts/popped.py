# all layers in one comprehension, the last activation taken off again
from torch import nn
import torch

dims = [5] + [16] * 4 + [2]
parts = [m for a, b in zip(dims, dims[1:]) for m in (nn.Linear(a, b), nn.ELU())]
net = nn.Sequential(*parts[:-1])
opt = torch.optim.RMSprop(net.parameters(), lr=1e-3)
for i in range(20):
    x = torch.rand(64, 5)
    t = (x.sum(1) > 2.5).long()
    loss = nn.functional.cross_entropy(net(x), t)
    opt.zero_grad(); loss.backward(); opt.step()
