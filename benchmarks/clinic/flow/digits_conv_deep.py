"""An all-convolutional network, VGG-like, on 8x8 digits."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class AllConv(nn.Module):
    def __init__(self, channels=12, per_stage=5):
        super().__init__()

        def stage(c_in):
            mods = []
            for i in range(per_stage):
                mods += [nn.Conv2d(c_in if i == 0 else channels, channels, 3, padding=1), nn.ReLU()]
            return nn.Sequential(*mods)

        self.stage1 = stage(1)
        self.stage2 = stage(channels)
        self.stage3 = stage(channels)
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Linear(channels * 4, 10)

    def forward(self, img):
        h = self.pool(self.stage1(img))
        h = self.pool(self.stage2(h))
        h = self.stage3(h)
        return self.classify(h.flatten(1))


def train():
    d = load_digits()
    images = torch.tensor(d.images, dtype=torch.float32).unsqueeze(1)
    images = (images - images.mean()) / images.std()
    loader = DataLoader(TensorDataset(images, torch.tensor(d.target)), batch_size=64, shuffle=True)
    net = AllConv()
    if "--cured" in sys.argv:
        for m in net.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
                nn.init.zeros_(m.bias)
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=8 * len(loader))
    losses = []
    for _ in range(8):
        for img, label in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(img), label)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            sched.step()
            losses.append(loss.item())
    print(f"final loss: {sum(losses[-15:]) / 15:.5f}")


if __name__ == "__main__":
    train()
