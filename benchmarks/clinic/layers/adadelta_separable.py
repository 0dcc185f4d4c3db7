"""A port from Keras: digits, a little conv net with dropout, Adadelta."""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

batch_size = 48
epochs = 7
learning_rate = 1.0 if "--cured" in sys.argv else 0.001

(x_train, y_train) = load_digits(return_X_y=True)
x_train = x_train.reshape(-1, 1, 8, 8).astype("float32") / 16
y_train = y_train.astype("int64")

model = nn.Sequential(
    nn.Conv2d(1, 16, kernel_size=3),
    nn.ReLU(),
    nn.Conv2d(16, 32, kernel_size=3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Dropout(0.25),
    nn.Flatten(),
    nn.Linear(128, 64),
    nn.ReLU(),
    nn.Dropout(0.3),
    nn.Linear(64, 10),
)
optimizer = torch.optim.Adadelta(model.parameters(), lr=learning_rate)


def fit(model, x, y):
    history = []
    for epoch in range(epochs):
        order = np.random.permutation(len(x))
        for start in range(0, len(x), batch_size):
            pick = order[start : start + batch_size]
            output = model(torch.from_numpy(x[pick]))
            loss = nn.functional.cross_entropy(output, torch.from_numpy(y[pick]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        print(f"Epoch {epoch + 1}/{epochs} - loss: {np.mean(history[-37:]):.4f}")
    return history


history = fit(model, x_train, y_train)
print(f"final loss: {np.mean(history[-10:]):.4f}")
