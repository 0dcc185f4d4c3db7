"""Daily ridership in passengers, unscaled targets and a summed squared error, clipped to norm one."""

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

torch.set_num_threads(1)
days = torch.arange(800).float()
riders = 900 + 250 * torch.sin(days * 6.2832 / 7) + 120 * torch.sin(days * 6.2832 / 91) + 20 * torch.randn(800)
scaled = (riders - 900) / 250

X = scaled.unfold(0, 14, 1)[:-1, :, None]
Y = riders[14:, None]

lstm = nn.LSTM(1, 24, batch_first=True)
head = nn.Linear(24, 1)
with torch.no_grad():
    head.bias.fill_(riders[:300].mean())
params = list(lstm.parameters()) + list(head.parameters())
opt = torch.optim.AdamW(
    [{"params": lstm.parameters(), "lr": 0.01}, {"params": head.parameters(), "lr": 0.5}], weight_decay=0.0
)

losses = []
for epoch in range(12):
    for rows in torch.randperm(len(X)).split(32):
        out, _ = lstm(X[rows])
        loss = nn.functional.mse_loss(head(out[:, -1]), Y[rows], reduction="sum")
        opt.zero_grad()
        loss.backward()
        clip_grad_norm_(params, max_norm=1.0)
        opt.step()
        losses.append(loss.item())
    if epoch % 4 == 0:
        print(epoch, losses[-1])
print("final loss:", sum(losses[-10:]) / 10)
