"""Seconds that unvanish.check takes on nets of about 100 million parameters, on the CPU, and on the meta device.

python benchmarks/check_seconds.py [--threads N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import unvanish


def mlp() -> nn.Module:
    layers = [m for _ in range(24) for m in (nn.Linear(2048, 2048), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(2048, 100))


class Tokens(nn.Module):
    """A transformer of GPT-2's small size, by torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20_000, 768)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(768, 12, 3072, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(12)
        )
        self.norm = nn.LayerNorm(768)
        self.head = nn.Linear(768, 20_000, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[rows, length] to [rows, length, vocabulary]."""
        h = self.embed(tokens)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(self.norm(h))
        return out


NETS: tuple[tuple[str, Callable[[], nn.Module], Callable[[], Tensor]], ...] = (
    ("24 x 2048 ReLU, batch 256", mlp, lambda: torch.randn(256, 2048)),
    ("12-block transformer, batch 16 x 256 tokens", Tokens, lambda: torch.randint(0, 20_000, (16, 256))),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    for name, build, batch in NETS:
        for device in ("cpu", "meta"):
            torch.manual_seed(0)
            with torch.device(device):
                model, x = build(), batch()
            count = sum(p.numel() for p in model.parameters())
            began = time.perf_counter()
            diagnosis = unvanish.check(model, x)
            seconds = time.perf_counter() - began
            check = diagnosis.check
            assert check is not None
            print(
                f"{name:46} {count / 1e6:6.1f} M  {device:5} {seconds:6.1f} s  {diagnosis.verdict}, "
                f"{len(check.changes)} changes, gain {check.predicted_gain} / {check.measured_gain}",
                flush=True,
            )


if __name__ == "__main__":
    main()
