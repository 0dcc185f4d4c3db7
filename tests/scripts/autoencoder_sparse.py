"""Sparse autoencoder for 8x8 digits: an overcomplete ReLU code with an L1 price on it."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader


class SparseAutoencoder(nn.Module):
    def __init__(self, n_in=64, n_code=256):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_in, 128), nn.ReLU(), nn.Linear(128, n_code), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(n_code, 128), nn.ReLU(), nn.Linear(128, n_in))

    def forward(self, x):
        code = self.encoder(x)
        return self.decoder(code), code


torch.manual_seed(7)
pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 16.0
pixels = (pixels - pixels.mean(0)) / 0.3
loader = DataLoader(pixels, batch_size=64, shuffle=True, drop_last=True)

model = SparseAutoencoder()
for layer in (model.encoder[0], model.encoder[2]):
    nn.init.kaiming_normal_(layer.weight)
nn.init.constant_(model.encoder[2].bias, -0.5)  # start out sparse
optim = torch.optim.Adam(model.parameters(), lr=1e-3)
mse = nn.MSELoss()
l1 = 3e-3

for epoch in range(10):
    sum_rec, sum_active = 0.0, 0.0
    for x in loader:
        reconstruction, code = model(x)
        loss = mse(reconstruction, x) + l1 * code.abs().sum(1).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        sum_rec += loss.item()
        sum_active += (code > 0).float().mean().item()
    n = len(loader)
    print(f"epoch {epoch}: loss {sum_rec / n:.5f}, {100 * sum_active / n:.1f} % of the code active")
