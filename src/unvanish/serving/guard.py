"""Who may ask: this machine's own browser; from elsewhere, and by other names, only who has the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEADER = "X-Unvanish-Token"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a request has to bring. Without a token only names of the loopback are answered to.

    A page of another site can make a browser send requests here, and by DNS rebinding even read the answers; but it
    can't choose the Host that its browser then names, nor leave out the Origin. With a token such a page has nothing
    to read: it does not know it. Even so, addresses are answered to and foreign names are not.
    """

    host: str
    token: str | None = None
    names: frozenset[str] = field(default_factory=frozenset)  # further hosts to answer to, in lower case

    def refusal(self, host: str | None, origin: str | None, given: str | None) -> Refusal | None:
        """Why not; None = it may be answered. `host`, `origin`: the request's headers; `given`: its token."""
        if host is None or not self._is_ours(name := host_name(host)):
            return Refusal(
                403,
                "this address is none that the server answers to; open the one that unvanish serve printed",
            )
        if origin is not None and not self._is_same(origin, name, host):
            return Refusal(403, "another page asked for this, and only the server's own pages may")
        if self.token is not None and not _equal(given or "", self.token):
            return Refusal(401, "this needs the token; open the whole address that unvanish serve printed")
        return None

    def _is_ours(self, name: str) -> bool:
        if (
            name == "localhost"
            or name in self.names
            or (self.token is not None and name == self.host.lower())
        ):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self.token is not None

    @staticmethod
    def _is_same(origin: str, name: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and bool(name)


def guard_for(host: str, token: str | None) -> Guard:
    """The guard of a server on `host`. Anything but the loopback wants a token: one is made if none is given."""
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    own = {socket.gethostname().lower()} if token is not None else set()
    return Guard(host=host, token=token, names=frozenset(own))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """The name in a Host header, without its port and in lower case; "" where it is none."""
    name, bracket, rest = host.strip().lower().rpartition("]")
    if bracket:
        return name[1:] if name.startswith("[") and (not rest or rest[0] == ":") else ""
    name, _, port = rest.partition(":")
    return name if not port or port.isdecimal() else ""


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8", "replace"))
