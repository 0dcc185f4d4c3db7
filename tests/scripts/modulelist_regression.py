"""Disease progression from ten baseline variables (scikit-learn's diabetes set)."""
from typing import List

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn


class DeepRegressor(nn.Module):
    def __init__(self, n_features: int, widths: List[int]) -> None:
        super().__init__()
        dims = [n_features, *widths]
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(dims, dims[1:])])
        self.head = nn.Linear(dims[-1], 1)
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x).squeeze(-1)


def load() -> tuple:
    x, y = load_diabetes(return_X_y=True)
    x = torch.as_tensor(x, dtype=torch.float32)
    y = torch.as_tensor(y, dtype=torch.float32)
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


def train(steps: int = 150, lr: float = 1e-2) -> None:
    torch.manual_seed(42)
    x, y = load()
    model = DeepRegressor(x.shape[1], [96] * 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for step in range(steps):
        rows = torch.randperm(len(x))[:64]
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 15 == 14 or step == 0:
            print(f"step={step + 1} mse_loss={loss.item():.6g}")


if __name__ == "__main__":
    train()
