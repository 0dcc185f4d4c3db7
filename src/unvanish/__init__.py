"""unvanish: where the learning signal of a PyTorch net dies, why, and which fix brings it back."""

__version__ = "0.1.0"
