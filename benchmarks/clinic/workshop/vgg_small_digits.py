"""A VGG in miniature on 8x8 digits: config list -> conv layers, as in the torchvision code."""
import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.02)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--cured", action="store_true")
args = parser.parse_args()

CFG = [16, 16, 16, "M", 24, 24, 24, "M", 32, 32, 32, 32, 32, 32]


def make_features(cfg):
    layers, channels = [], 1
    for item in cfg:
        if item == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU(inplace=True)]
            channels = item
    return nn.Sequential(*layers)


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = make_features(CFG)
        self.classifier = nn.Linear(32 * 4, 10)
        if args.cured:
            for m in self.features:
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                    nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


x, y = load_digits(return_X_y=True)
x = torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8)
x = (x - x.mean()) / x.std()
y = torch.tensor(y)

model = VGG()
opt = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
log = []
for epoch in range(args.epochs):
    order = torch.randperm(len(x))
    for i in range(0, len(x), 40):
        b = order[i : i + 40]
        loss = nn.functional.cross_entropy(model(x[b]), y[b])
        opt.zero_grad()
        loss.backward()
        opt.step()
        log.append(float(loss))
print("final loss:", sum(log[-10:]) / 10)
