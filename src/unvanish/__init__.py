"""unvanish: where the learning signal of a PyTorch net dies, why, and which fix brings it back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unvanish import testing as testing
    from unvanish.precheck.check import check as check
    from unvanish.remedy.face import treat as treat
    from unvanish.session import explain as explain
    from unvanish.session import watch as watch
    from unvanish.treatment.recipe import apply_recipe as apply

# name -> where it lives. Looked up on first use: `import unvanish` itself imports neither torch nor numpy.
_FACE = {
    "apply": "unvanish.treatment.recipe:apply_recipe",
    "check": "unvanish.precheck.check:check",
    "explain": "unvanish.session:explain",
    "testing": "unvanish.testing:",
    "treat": "unvanish.remedy.face:treat",
    "watch": "unvanish.session:watch",
}

__all__ = ["__version__", "apply", "check", "explain", "testing", "treat", "watch"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _FACE[name].partition(":")
    import_module("unvanish.session")  # what a notebook shows of the results is set there
    found = import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What the face offers, imported or not."""
    return sorted({*globals(), *_FACE})
