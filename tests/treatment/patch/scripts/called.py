import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):

  def __init__(self):
    super().__init__()
    self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)
    self.fc3 = nn.Linear(8, 8); self.scale = 1.0
    self.head = nn.Linear(in_features=8, out_features=1)

  def forward(self, x):
    x = F.sigmoid(self.fc1(x))
    h = torch.sigmoid(self.fc2(x)); h = self.fc3(h)
    return torch.sigmoid(self.head(h.sigmoid())).squeeze(-1)


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=.5)
for epoch in range(20):
  x = torch.randn(40, 8)
  y = (x[:, 0] > 0).float()
  optimizer.zero_grad()
  loss = F.binary_cross_entropy(net(x), y)
  loss.backward()
  optimizer.step()
