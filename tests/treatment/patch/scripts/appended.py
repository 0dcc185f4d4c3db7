import torch
from torch import nn, optim


class MLP(nn.Module):
    def __init__(self, sizes, activation=nn.Tanh, dropout=0.0):
        super(MLP, self).__init__()
        layers = []
        for i in range(len(sizes) - 2):
            layers.append(nn.Linear(sizes[i], sizes[i + 1]))
            layers.append(activation())
            if dropout > 0:
                layers.append(nn.Dropout(p=dropout))
        layers.append(nn.Linear(sizes[-2], sizes[-1]))
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


def train(model, steps=20):
    criterion = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        x = torch.randn(16, 4)
        optimizer.zero_grad()
        loss = criterion(model(x), x.sum(dim=1, keepdim=True))
        loss.backward()
        optimizer.step()


if __name__ == '__main__':
    net = MLP([4, 10, 10, 10, 1], dropout=0.1)
    train(net)
