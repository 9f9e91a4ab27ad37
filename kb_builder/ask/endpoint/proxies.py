"""The proxy for an address: by the environment, but never for loopback.

A proxy cannot reach the loopback of this machine: it refuses such a request, or another machine answers it.
Many companies set `HTTP_PROXY` without `NO_PROXY`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

# Understood by every library that reads NO_PROXY; ranges and wildcards are not.
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Proxy:
    """A proxy. `url` may hold a password: print `shown`, which names the environment variable instead."""

    url: str
    variable: str

    @property
    def shown(self) -> str:
        """Scheme, host and port, and the variable that it was read from."""
        try:
            parts = urlsplit(self.url)
            port = f":{parts.port}" if parts.port else ""
            return f"{parts.scheme}://{parts.hostname or ''}{port} ({self.variable})"
        except ValueError:  # the port is not a number
            return f"the address in {self.variable}"


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine: 127.0.0.0/8, ::1, localhost or below it, in any notation."""
    name = (host or "").strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        if not re.fullmatch(r"[0-9a-fx.]*[0-9]", name) or not name[:1].isdigit():
            return False
        try:  # 127.1, 2130706433 and 0x7f000001 all connect to 127.0.0.1
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_loopback or address.is_unspecified  # connecting to 0.0.0.0 reaches this machine


def proxy_for(url: str) -> Proxy | None:
    """The proxy for requests to an address; None: they are sent directly."""
    parts = urlsplit(url)
    if is_loopback(parts.hostname):
        return None
    proxies = getproxies()
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    for kind in (parts.scheme, "all"):
        found = proxies.get(kind)
        if found:
            return Proxy(found if "://" in found else f"http://{found}", _variable(kind))
    return None


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add loopback to NO_PROXY where a proxy is set, for libraries that read the environment themselves.

    Child processes inherit it. Other hosts in NO_PROXY stay.
    """
    names = ("http_proxy", "https_proxy", "all_proxy")
    if not any(environment.get(name) or environment.get(name.upper()) for name in names):
        return
    said = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    if "*" in hosts:
        return
    hosts += [host for host in _LOOPBACK if host not in hosts]
    for name in ("no_proxy", "NO_PROXY"):  # where both are read, lower case wins
        environment[name] = ",".join(hosts)


def _variable(kind: str) -> str:
    name = f"{kind}_proxy"
    return next((each for each in (name, name.upper()) if os.environ.get(each)), name.upper())
