"""The three nets that step time is taken on, each with its optimizer and one batch, ready to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model in training. `step()` is one whole optimizer step on the same batch, and gives its loss."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], Tensor]

    @property
    def parameter_bytes(self) -> int:
        """The size of the model's parameters, in bytes."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


def _workload(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Workload:
    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Workload(model=model, optimizer=optimizer, step=step)


def mlp(depth: int = 20, width: int = 256, batch: int = 128) -> Workload:
    """Linear + ReLU, He initialisation, SGD with momentum."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(width, width)
        nn.init.kaiming_normal_(linear.weight)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    return _workload(model, optimizer, torch.randn(batch, width), torch.randint(10, (batch,)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and the block's input added to what they give."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, h, w] -> [batch, outputs, h / stride, w / stride]."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


def resnet(width: int = 64, batch: int = 64) -> Workload:
    """ResNet-18 in its form for 32x32 images; `width` is the channels of the first of its four stages."""
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        blocks += [BasicBlock(inputs, outputs, 1 if stage == 0 else 2), BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10)]
    model = nn.Sequential(*stem, *blocks, *head)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    return _workload(model, optimizer, torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,)))


class Encoder(nn.Module):
    """A transformer encoder over embedded tokens, pre-norm, with one class for each sequence."""

    def __init__(self, layers: int, width: int, tokens: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        block = nn.TransformerEncoderLayer(
            width, 8, 4 * width, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens] -> [batch, 10]."""
        h: Tensor = self.blocks(self.embed(x) + self.position)
        out: Tensor = self.head(h.mean(1))
        return out


def transformer(layers: int = 6, width: int = 256, tokens: int = 128, batch: int = 8) -> Workload:
    """Six layers, AdamW."""
    torch.manual_seed(0)
    model = Encoder(layers, width, tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return _workload(model, optimizer, torch.randint(1000, (batch, tokens)), torch.randint(10, (batch,)))
