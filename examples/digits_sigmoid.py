"""Handwritten digits, classified by a deep sigmoid network. Run it: python examples/digits_sigmoid.py"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 12
BATCH = 64
DEPTH = 12
WIDTH = 64


def load_data():
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16.0, labels, test_size=0.2, random_state=0, stratify=labels
    )
    train = TensorDataset(torch.tensor(train_x, dtype=torch.float32), torch.tensor(train_y))
    return train, torch.tensor(test_x, dtype=torch.float32), torch.tensor(test_y)


def build_model():
    layers = [nn.Linear(64, WIDTH), nn.Sigmoid()]
    for _ in range(DEPTH - 2):
        layers += [nn.Linear(WIDTH, WIDTH), nn.Sigmoid()]
    layers += [nn.Linear(WIDTH, 10)]
    return nn.Sequential(*layers)


def main():
    torch.manual_seed(0)
    train, test_x, test_y = load_data()
    loader = DataLoader(train, batch_size=BATCH, shuffle=True, drop_last=True)

    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_fn = nn.CrossEntropyLoss()

    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()

        model.eval()
        with torch.no_grad():
            accuracy = (model(test_x).argmax(dim=1) == test_y).float().mean().item()
        print(f"epoch {epoch + 1:2d}  loss {total / len(loader):.4f}  held-out accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
