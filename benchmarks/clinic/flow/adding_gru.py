"""The sum of a short noisy series with a GRU."""

import sys

import torch
from torch import nn

HIDDEN = 24
gru = nn.GRU(input_size=1, hidden_size=HIDDEN, batch_first=True)
head = nn.Linear(HIDDEN, 1)
model = nn.ModuleDict({"gru": gru, "head": head})
for name, p in gru.named_parameters():
    if "bias" in name:
        nn.init.zeros_(p)
if "--cured" not in sys.argv:
    with torch.no_grad():  # long memory: start with the update gate on "keep"
        gru.bias_ih_l0[HIDDEN : 2 * HIDDEN] = 14.0

optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
errors = []
for step in range(300):
    x = torch.randn(64, 20, 1)
    y = x.sum(1) / 20**0.5
    _, h = model["gru"](x)
    loss = nn.functional.mse_loss(model["head"](h[0]), y)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    errors.append(loss.item())
print("final loss:", sum(errors[-20:]) / 20)
