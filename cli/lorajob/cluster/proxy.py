"""Chooses the proxy to a server, if any, by the rules that kubectl and curl share. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lorajob.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """An HTTP proxy that passes connections on by CONNECT."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """What to say to it."""
        return {} if self.user is None else {"Proxy-Authorization": basic(self.user, self.password or "")}


def basic(user: str, password: str) -> str:
    """The value of an Authorization header for a name and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def choose(server: str, configured: str | None, variables: Mapping[str, str]) -> Proxy | None:
    """The proxy for a server's address: the kubeconfig's proxy-url, else HTTPS_PROXY where NO_PROXY does not except it.

    Raises UsageError for a kind of proxy that is not spoken here.
    """
    if configured is not None:
        return parse(configured, "the kubeconfig's proxy-url")
    name = "HTTPS_PROXY" if server.startswith("https:") else "HTTP_PROXY"
    value = variables.get(name) or variables.get(name.lower())
    if not value:
        return None
    address = urlsplit(server)
    port = address.port or (443 if address.scheme == "https" else 80)
    excepted = variables.get("NO_PROXY") or variables.get("no_proxy") or ""
    return None if bypasses(address.hostname or "", port, excepted) else parse(value, name)


def parse(url: str, place: str) -> Proxy:
    """`http://user:password@host:3128` as a Proxy; `place` is where it was said."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{place} is not an address: it must be http://HOST:PORT") from error
    if parts.scheme != "http" or not parts.hostname:
        # the address may hold a password, so it is not shown
        raise UsageError(f"{place} is a {parts.scheme or 'nameless'} proxy: it must be http://HOST:PORT")
    return Proxy(
        host=parts.hostname,
        port=port or 80,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def bypasses(host: str, port: int, excepted: str) -> bool:
    """Whether NO_PROXY's list excepts a host: a name with all below it, .suffix, address, network, with a port, or *.

    This machine itself is always reached without a proxy.
    """
    host = host.lower().rstrip(".")
    if host == "localhost" or _address_in(host, "127.0.0.0/8") or host == "::1":
        return True
    for entry in (part.strip().lower() for part in excepted.split(",")):
        if not entry:
            continue
        if entry == "*" or _address_in(host, entry):
            return True
        name, _, only_port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if only_port and only_port != str(port):
            continue
        name = name.removeprefix("*")
        if host == name or host.endswith(name if name.startswith(".") else f".{name}"):
            return True
    return False


def _address_in(host: str, network: str) -> bool:
    """Whether an IP address lies in a network like 10.0.0.0/8."""
    if "/" not in network or not (host[:1].isdigit() or ":" in host):
        return False
    import ipaddress  # only where there are networks to compare with

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
