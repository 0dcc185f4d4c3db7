"""Layers."""

from torch import nn as layers


def build(width, act=layers.Sigmoid):
    parts = [layers.Linear(width, width), act()]
    for _ in range(3):
        parts += [layers.Linear(width, width), act()]
    return layers.Sequential(*parts, layers.Linear(width, 2))
