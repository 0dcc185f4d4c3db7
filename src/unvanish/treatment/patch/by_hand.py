"""What to write by hand where a program can't, and where."""

from __future__ import annotations

from unvanish.treatment.patch.facts import Change, Facts
from unvanish.treatment.patch.text import PatchError


def snippet_for(facts: Facts, change: Change | None, error: PatchError) -> str:
    """Lines to write by hand, with the place in front."""
    first = facts.optimizers[0] if facts.optimizers else None
    site = None if first is None else first.site
    model = first.names[0] if first is not None and first.names else "model"
    where = f"{site.file}:{site.line}" if site is not None else "the line that builds the optimizer"
    lines = [f"# {error.place}: {error.mistake}"] if error.place else []
    return "\n".join(
        [*lines, f"# before {where}", "import unvanish", f'unvanish.apply({model}, "recipe.json")']
    )
