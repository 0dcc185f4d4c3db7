import torch
from torch.nn import Conv2d, CrossEntropyLoss, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential


def conv(c_in, c_out, k=3):
    return Sequential(Conv2d(c_in, c_out, k, padding=k // 2), ReLU(inplace=True))


class ConvNet(Module):
    def __init__(self):
        super().__init__()
        self.body = Sequential(conv(1, 8), conv(8, 8), MaxPool2d(2), conv(8, 8), Flatten())
        self.fc = Linear(8 * 16, 5)

    def forward(self, x):
        return self.fc(self.body(x))


net = ConvNet()
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
for _ in range(20):
    x = torch.randn(8, 1, 8, 8)
    loss = CrossEntropyLoss()(net(x), x.flatten(1).argmax(1) % 5)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
