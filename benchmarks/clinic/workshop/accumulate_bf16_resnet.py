"""CPU bfloat16 autocast with gradient accumulation: micro-batches of 8, an update every four of them."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ACCUMULATE, UPDATES = 4, 120


class Block(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.conv1 = nn.Conv2d(ch, ch, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(4, ch)
        self.conv2 = nn.Conv2d(ch, ch, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(4, ch)

    def forward(self, x):
        h = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(h)))


class TinyResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).flatten(1))


digits = load_digits()
x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
loader = DataLoader(TensorDataset(x, torch.tensor(digits.target)), batch_size=8, shuffle=True, drop_last=True)
model = TinyResNet()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)

losses, micro, current = [], 0, 0.0
while len(losses) < UPDATES:
    for images, labels in loader:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels) / ACCUMULATE
        loss.backward()
        current += loss.item()
        micro += 1
        if micro % ACCUMULATE == 0:
            optimizer.step()
            optimizer.zero_grad()
            losses.append(current)
            current = 0.0
            if len(losses) == UPDATES:
                break
print("final loss:", sum(losses[-10:]) / 10)
