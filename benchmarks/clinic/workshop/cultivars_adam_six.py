import sys

import torch
import torch.nn as nn
from sklearn.datasets import load_wine
from sklearn.preprocessing import MinMaxScaler

LR = 2e-3 if "--cured" in sys.argv else 2e-1

features, labels = load_wine(return_X_y=True)
features = torch.FloatTensor(MinMaxScaler().fit_transform(features))
labels = torch.LongTensor(labels)

mlp = nn.Sequential(
    nn.Linear(13, 48),
    nn.ReLU(),
    nn.Linear(48, 48),
    nn.ReLU(),
    nn.Linear(48, 48),
    nn.ReLU(),
    nn.Linear(48, 48),
    nn.ReLU(),
    nn.Linear(48, 48),
    nn.ReLU(),
    nn.Linear(48, 3),
)
adam = torch.optim.Adam(mlp.parameters(), lr=LR)
loss_function = nn.CrossEntropyLoss()

losses = []
for epoch in range(40):
    mlp.train()
    shuffled = torch.randperm(len(features))
    for chunk in shuffled.chunk(5):
        adam.zero_grad()
        out = mlp(features[chunk])
        loss = loss_function(out, labels[chunk])
        loss.backward()
        adam.step()
        losses.append(loss.item())
    mlp.eval()
    with torch.no_grad():
        accuracy = (mlp(features).argmax(1) == labels).float().mean()
    if epoch % 10 == 9:
        print(f"epoch {epoch + 1}  loss {losses[-1]:.4f}  accuracy {accuracy:.2%}")
print(f"final loss: {sum(losses[-10:]) / 10:.5f}")
