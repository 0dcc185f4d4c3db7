"""Capture (torch): measure a training run without disturbing it. Hot path: reduce and buffer."""
