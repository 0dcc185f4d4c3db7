"""Ten tanh layers on the digits, Xavier initialisation, SGD with weight decay."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class TanhLayer(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(x).tanh()


class TanhNet(nn.Module):
    def __init__(self, width=64, depth=9):
        super().__init__()
        self.features = nn.Sequential(
            TanhLayer(64, width), *[TanhLayer(width, width) for _ in range(depth - 1)]
        )
        self.classifier = nn.Linear(width, 10)

    def forward(self, x):
        return self.classifier(self.features(x))


def main():
    digits = load_digits()
    x = torch.tensor((digits.data - 4.9) / 6.0, dtype=torch.float32)
    y = torch.tensor(digits.target)
    net = TanhNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=1e-4)
    losses = []
    for _ in range(300):
        i = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    print(f"final loss: {sum(losses[-10:]) / 10:.5f}")


if __name__ == "__main__":
    main()
