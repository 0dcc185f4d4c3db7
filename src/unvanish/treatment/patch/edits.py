"""The calls in running forwards that surgery changed, as places in the source."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from unvanish.treatment.dressing import coats_of
from unvanish.treatment.kinds import plain_type
from unvanish.treatment.patch.facts import Site
from unvanish.treatment.patch.places import Places
from unvanish.treatment.rewriting import Rewritten, plain_method


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEdit:
    """One edit of one call, as treatment.rewriting.Edit says it. `site` is None outside of the user's files."""

    owner: str
    site: Site | None
    end: tuple[int, int]
    action: str
    name: str
    value: float


def new_edits(places: Places, model: nn.Module) -> list[NewEdit]:
    """All edits that the model's modules wear now, in order."""
    found = []
    for path, module in model.named_modules():
        for coat in coats_of(module):
            if isinstance(coat, Rewritten):
                for method, edits in coat.methods:
                    code = plain_method(plain_type(module), method).__code__
                    file = places.relative(code.co_filename)
                    for edit in edits:
                        end = (edit.end_line, edit.end_column)
                        site = (
                            None if file is None else Site(file=file, line=end[0], end=end, function=method)
                        )
                        found.append(
                            NewEdit(owner=path, site=site, end=end, action=edit.action, name=edit.name,
                                    value=edit.value)
                        )  # fmt: skip
    return found
