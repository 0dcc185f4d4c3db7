"""One self-contained page: the view as data, the viewer as code, nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any

from unvanish.errors import UnvanishError

# a browser ends a script element at "</script" whatever its type, and older ones stop at U+2028/2029
_ESCAPES = (
    ("&", "\\u0026"),
    ("<", "\\u003c"),
    (">", "\\u003e"),
    ("\u2028", "\\u2028"),
    ("\u2029", "\\u2029"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
{meta}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main id="unvanish"><noscript>{plain}</noscript></main>
{data}
<script>{script}</script>
</body>
</html>
"""


def render_html(view: dict[str, Any]) -> str:
    """The page as text. The view is data in it, never code: no name in it can end its element or run.

    The Content-Security-Policy lets only the viewer's own script run (by its hash) and no request out. It
    raises UnvanishError if the package came without its viewer.
    """
    data = f'<script type="application/json" id="unvanish-view">{embed_json(view)}</script>'
    return _page(title=_title(view), plain=_without_script(view), data=data)


def render_comparison(comparison: dict[str, Any]) -> str:
    """The page of several runs side by side: {"kind": "compare", "runs": [views], "differences": [...]}."""
    names = [str(view["run"]["name"])[:80] for view in comparison["runs"]]
    plain = "\n".join(_without_script(view) for view in comparison["runs"])
    data = f'<script type="application/json" id="unvanish-data">{embed_json(comparison)}</script>'
    return _page(title=f"{' / '.join(names)} - unvanish", plain=plain, data=data)


def render_shell(kind: str, address: str, title: str = "unvanish") -> str:
    """The page without data, for a server: the viewer asks `address`, relative to the page, for it.

    `kind`: "view", "runs" or "compare". It may ask its own server, and nothing else.
    """
    meta = f'<meta name="unvanish-{_escape(kind)}" content="{_escape(address)}">\n'
    return _page(title=title, plain="<p>This page needs JavaScript.</p>", meta=meta, connect="'self'")


def _page(*, title: str, plain: str, data: str = "", meta: str = "", connect: str = "'none'") -> str:
    script, style = _asset("viewer.js"), _asset("viewer.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.format(
        policy=policy, title=_escape(title), meta=meta, style=style, plain=plain, data=data, script=script
    )


def embed_json(value: Any) -> str:
    """JSON that can stand inside of a script element. ValueError: the view holds a NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, escape in _ESCAPES:
        text = text.replace(sign, escape)
    # half a surrogate pair (from a file name that is no UTF-8) can't be written; JSON's own escape can
    return _SURROGATE.sub(lambda half: f"\\u{ord(half.group()):04x}", text)


def _title(view: dict[str, Any]) -> str:
    return f"{view['verdict'].replace('_', ' ')} - {view['run']['name'][:200]} - unvanish"


def _without_script(view: dict[str, Any]) -> str:
    """The three lines for a reader whose browser runs no script."""
    lines = []
    for model in view["models"]:
        head = model["headline"]
        lines.append(f"<h1>{_escape(model['name'])}</h1>")
        lines += [f"<p><b>{k.capitalize()}</b> {_escape(head[k])}</p>" for k in ("verdict", "why", "next")]
    return "\n".join([*lines, "<p>The charts need JavaScript; nothing is loaded from the network.</p>"])


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
