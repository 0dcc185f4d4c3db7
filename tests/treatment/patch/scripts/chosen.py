import torch
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Dense(nn.Module):
    def __init__(self, n_in, n_out, activation):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x):
        return self.activation(self.linear(x))


class Model(nn.Module):
    def __init__(self, hidden=(14, 14, 14), activation="sigmoid"):
        super().__init__()
        self.dense = nn.Sequential()
        n = 9
        for i, h in enumerate(hidden):
            self.dense.add_module(f"dense{i}", Dense(n, h, activation))
            n = h
        self.out = nn.Linear(n, 1)

    def forward(self, x):
        return self.out(self.dense(x))


config = dict(lr=0.1, steps=20)
model = Model()
for p in model.parameters():
    if p.dim() > 1:
        nn.init.kaiming_uniform_(p)
optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"])
for step in range(config["steps"]):
    x = torch.randn(24, 9)
    loss = (model(x) - x.mean(1, keepdim=True)).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
