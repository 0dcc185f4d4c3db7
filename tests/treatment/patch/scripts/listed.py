"""One nn.Sequential, an element to a line, with comments."""
import torch
from torch import nn

torch.manual_seed(3)
model = nn.Sequential(
    nn.Linear(6, 12),  # in
    nn.Sigmoid(),
    nn.Linear(12, 12),
    nn.Sigmoid(),  # hidden
    nn.Linear(12, 12),
    nn.Sigmoid(),
    nn.Linear(12, 3)  # out
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(20):
    x = torch.randn(32, 6)
    y = x.argmax(1) % 3
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
