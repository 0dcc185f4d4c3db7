"""Digits with strong dropout on a large hidden layer, SGD with momentum and weight decay."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def model():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 600),
        nn.ReLU(),
        nn.Dropout(0.8),
        nn.Linear(600, 300),
        nn.ReLU(),
        nn.Dropout(0.8),
        nn.Linear(300, 10),
    )


def main(epochs=14):
    d = load_digits()
    loader = DataLoader(TensorDataset(torch.tensor(d.images / 16).float(), torch.tensor(d.target)), batch_size=64, shuffle=True)
    net = model()
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    losses = []
    net.train()
    for _ in range(epochs):
        for image, digit in loader:
            opt.zero_grad()
            loss = nn.CrossEntropyLoss()(net(image), digit)
            loss.backward()
            opt.step()
            losses.append(loss.item())
    print(f"final loss: {sum(losses[-10:]) / 10}")


if __name__ == "__main__":
    main()
