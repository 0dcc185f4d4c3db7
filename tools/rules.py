"""Write docs/rules: one page a rule of the diagnosis, generated from the rule and from the clinic's labels.

    .venv/bin/python tools/rules.py [--check]

--check writes nothing, and exits with 1 where a page is not what the rules say today.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "clinic"))

from labels import Case, all_cases  # noqa: E402 - after the path is set

from unvanish.diagnose import rules  # noqa: E402
from unvanish.diagnose.engine import BEFORE, BEHIND, FLOW  # noqa: E402
from unvanish.diagnose.rule import Rule  # noqa: E402
from unvanish.schema.finding import Cause  # noqa: E402

FOLDER = ROOT / "docs" / "rules"
_THRESHOLD = re.compile(r"^([A-Z][A-Z_]+) = ([^#\n]+?)\s*# (.+)$", re.MULTILINE)


def modules() -> list[tuple[str, ModuleType, Rule]]:
    """(file's name, module, rule), in the order of the decision."""
    found = []
    for info in pkgutil.iter_modules(rules.__path__):
        module = importlib.import_module(f"{rules.__name__}.{info.name}")
        found.append((info.name, module, module.RULE))
    order = [*BEFORE, *FLOW, *BEHIND]
    return sorted(found, key=lambda one: order.index(one[2]))


def _is_its(name: str, case: Case) -> bool:
    """Where two rules find the same kind, the one that is called as a cause has the cases with that cause."""
    if name in get_args(Cause):
        return name in case.causes
    narrower = {"attention": "attention_saturation"}
    if name in narrower:
        return narrower[name] in case.causes
    if name == "vanishing":
        return case.causes[0] not in narrower.values()
    return name != "plateau" or "symmetry" not in case.causes


def page(name: str, module: ModuleType, rule: Rule, cases: list[Case]) -> str:
    """One rule."""
    doc = (module.__doc__ or "").strip().replace("\n", " ")
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    lines = [f"# {doc.partition(':')[0].rstrip('.')}", "", doc, ""]
    lines += [
        f"- **Kind**: `{rule.kind}`",
        f"- **Why**: {rule.why}",
        f"- **When it is wrong**: {rule.wrong_when}",
    ]
    lines += [f"- **Source**: {rule.source}", f"- **Code**: `src/unvanish/diagnose/rules/{name}.py`", ""]
    thresholds = _THRESHOLD.findall(source)
    if thresholds:
        lines += ["## Thresholds", "", "| name | value | what it is |", "|---|---|---|"]
        for n, value, what in thresholds:
            escaped = what.replace("|", "\\|")
            lines.append(f"| `{n}` | `{value.strip()}` | {escaped} |")
        lines.append("")
    own = [c for c in cases if c.kinds and c.kinds[0] == rule.kind and _is_its(name, c)]
    if own:
        lines += ["## Cases of the clinic with this kind", ""]
        lines += [f"- `{c.name}` ({', '.join(c.causes)}): {c.what} Cure: {c.cure}" for c in own] + [""]
    lines += ["The healthy scripts that it must not be fooled by are those of [the clinic](../clinic.md)."]
    return "\n".join(lines) + "\n"


def index(found: list[tuple[str, ModuleType, Rule]]) -> str:
    """The list of them."""
    lead = (
        "In the order of the decision. The groups exclude one another: what is disconnected, or cut off at the "
        "output, is not asked for its gradient flow; and where the flow is broken the rate is not asked for."
    )
    lines = ["# Rules of the diagnosis", "", lead, ""]
    for title, group in (("Before the flow", BEFORE), ("Gradient flow", FLOW), ("Behind it", BEHIND)):
        lines += [f"## {title}", ""]
        for name, module, rule in found:
            if rule in group:
                lines.append(f"- [{name}]({name}.md) (`{rule.kind}`): {(module.__doc__ or '').strip()}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    found, cases = modules(), all_cases()
    pages = {f"{name}.md": page(name, module, rule, cases) for name, module, rule in found}
    pages["README.md"] = index(found)
    stale = [
        n for n, text in pages.items() if not (FOLDER / n).exists() or (FOLDER / n).read_text("utf-8") != text
    ]
    stale += [p.name for p in FOLDER.glob("*.md") if p.name not in pages]
    if options.check:
        print("\n".join(f"docs/rules/{name} is not what the rules say" for name in stale))  # noqa: T201 - its output
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
