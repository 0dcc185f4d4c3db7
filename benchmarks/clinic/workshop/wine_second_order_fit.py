"""Wine with a small tanh network, fitted by LBFGS on the whole data set with weight decay in the loss."""
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

X, y = load_wine(return_X_y=True)
X = torch.tensor(StandardScaler().fit_transform(X), dtype=torch.float32)
y = torch.tensor(y)
model = nn.Sequential(nn.Linear(13, 10), nn.Tanh(), nn.Linear(10, 3))
solver = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=4, line_search_fn="strong_wolfe")


def closure():
    solver.zero_grad()
    fit = nn.functional.cross_entropy(model(X), y)
    decay = sum((p**2).sum() for p in model.parameters())
    loss = fit + 1e-4 * decay
    loss.backward()
    return loss


losses = []
for step in range(120):
    losses.append(solver.step(closure).item())
    if step % 20 == 0:
        norm = sum(p.grad.norm() ** 2 for p in model.parameters()).sqrt()
        print(f"{step:4d} loss {losses[-1]:.6f} gradient {norm:.2e}")
print("final loss:", sum(losses[-10:]) / 10)
