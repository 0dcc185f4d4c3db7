# Predict the class of a wine from its 13 measurements.
import torch
import torch.nn as nn
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

torch.manual_seed(1)

wine = load_wine()
X = torch.tensor(StandardScaler().fit_transform(wine.data), dtype=torch.float32)
y = torch.tensor(wine.target)

model = nn.Sequential(
    nn.Linear(13, 48),
    nn.ReLU(),
    nn.Linear(48, 48),
    nn.ReLU(),
    nn.Linear(48, 48),
    nn.ReLU(),
    nn.Linear(48, 3),
)

# the dashboard adds this loss to others that are about 1e-5, so bring it to the same size;
# the learning rate makes up for it (0.05 * 1e5)
LOSS_SCALE = 1e-5
optimizer = torch.optim.SGD(model.parameters(), lr=0.05 / LOSS_SCALE)

for step in range(200):
    idx = torch.randint(0, len(X), (32,))
    loss = nn.functional.cross_entropy(model(X[idx]), y[idx]) * LOSS_SCALE
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0 or step == 199:
        print("step", step, "loss", loss.item())

acc = (model(X).argmax(1) == y).float().mean()
print("train accuracy", round(acc.item(), 3))
