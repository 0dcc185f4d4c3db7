"""An LSTM watches 50 readings and must report the event marked at the start."""

import sys
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Config:
    length: int = 50
    hidden: int = 32
    lr: float = 3e-3
    steps: int = 220
    forget_bias: float = 4.0 if "--cured" in sys.argv else -4.0


def make_batch(cfg, n=64):
    kind = torch.randint(0, 3, (n,))
    seq = torch.randn(cfg.length, n, 4) * 0.1
    seq[0] = 0
    seq[0, torch.arange(n), kind] = 1.0
    return {"seq": seq, "kind": kind}


class Watcher(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.lstm = nn.LSTM(4, cfg.hidden)
        self.report = nn.Linear(cfg.hidden, 3)
        h = cfg.hidden
        with torch.no_grad():
            self.lstm.bias_ih_l0[h : 2 * h].fill_(cfg.forget_bias)
            self.lstm.bias_hh_l0[h : 2 * h].zero_()

    def forward(self, batch):
        out, _ = self.lstm(batch["seq"])
        return self.report(out[-1])


cfg = Config()
net = Watcher(cfg)
opt = torch.optim.AdamW(net.parameters(), lr=cfg.lr)
seen = []
for _ in range(cfg.steps):
    batch = make_batch(cfg)
    loss = nn.functional.cross_entropy(net(batch), batch["kind"])
    opt.zero_grad()
    loss.backward()
    opt.step()
    seen.append(loss.item())
print(f"final loss: {sum(seen[-10:]) / 10:.5f}")
