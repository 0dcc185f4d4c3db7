"""The viewer's page without its data: for a server that gives these, and for a comparison that holds its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any, Literal

from unvanish.errors import UnvanishError
from unvanish.present.html import embed_json

Shown = Literal["runs", "view", "compare"]
_SURROGATE = re.compile("[\ud800-\udfff]")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
{source}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main id="unvanish"><noscript>{plain}</noscript></main>
{data}<script>{script}</script>
</body>
</html>
"""


def served_page(shown: Shown, address: str, title: str) -> str:
    """A page whose viewer fetches what it shows from `address`, relative to the page's own, and nothing else."""
    return _page(
        title,
        f'<meta name="unvanish-{shown}" content="{_escape(address)}">\n',
        "",
        policy="connect-src 'self'; ",
        plain=f"<p>The page needs JavaScript; its data as JSON: {_escape(address)}</p>",
    )


def comparison_page(comparison: dict[str, Any], plain: str) -> str:
    """A comparison as one self-contained page, with no way out to the network. `plain`: for who runs no script."""
    names = " and ".join(str(view["run"]["name"])[:80] for view in comparison["runs"][:3])
    data = f'<script type="application/json" id="unvanish-data">{embed_json(comparison)}</script>\n'
    return _page(f"{names}, compared", "", data, policy="", plain=f"<pre>{_escape(plain)}</pre>")


def policy_of(page: str) -> str:
    """The policy that a page states of itself, for the header of a server."""
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    return html.unescape(found.group(1)) if found else "default-src 'none'"


def as_json(value: Any) -> bytes:
    """JSON for the wire: compact, in ASCII, so that half a surrogate pair can pass. ValueError: it holds a NaN."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _page(title: str, source: str, data: str, *, policy: str, plain: str) -> str:
    script, style = _asset("viewer.js"), _asset("viewer.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _PAGE.format(
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; {policy}"
        "base-uri 'none'; form-action 'none'",
        title=f"{_escape(title)} - unvanish",
        source=source,
        style=style,
        plain=plain,
        data=data,
        script=script,
    )


def _escape(text: str) -> str:
    return html.escape(_SURROGATE.sub("\ufffd", text))


def _asset(name: str) -> str:
    try:
        return (resources.files("unvanish.present") / "assets" / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UnvanishError(
            f"the page's {name} is missing from this installation",
            "reinstall unvanish, or run `npm ci && npm run build` in web/",
        ) from error
