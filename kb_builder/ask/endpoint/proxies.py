"""Which proxy stands between this process and an address: what the environment says, and never one for
loopback.

A proxy cannot reach this machine's own loopback, so a request for it through a proxy is refused at best, and
at worst answered by somebody else. `HTTP_PROXY` without `NO_PROXY` is usual in companies all the same.
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

# What every library understands that reads NO_PROXY; ranges and wildcards are not among it.
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Proxy:
    """`url` may hold a password: show `told` instead, which names the variable that it was read from."""

    url: str
    variable: str

    @property
    def told(self) -> str:
        """Host and port, and the variable that says so."""
        try:
            parts = urlsplit(self.url)
            port = f":{parts.port}" if parts.port else ""
            return f"{parts.scheme}://{parts.hostname or ''}{port} ({self.variable})"
        except ValueError:  # a port that is none
            return f"the address in {self.variable}"


def is_loopback(host: str | None) -> bool:
    """Whether a host names this machine itself: 127.0.0.0/8, ::1, localhost and below it, however written."""
    name = (host or "").strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        if not re.fullmatch(r"[0-9a-fx.]*[0-9]", name) or not name[:1].isdigit():
            return False
        try:  # 127.1, 2130706433 and 0x7f000001 are 127.0.0.1 to whoever connects
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return False
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return address.is_loopback or address.is_unspecified  # connecting to 0.0.0.0 reaches this machine


def proxy_for(url: str) -> Proxy | None:
    """The proxy that requests to an address go through; None: they go there directly."""
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
    """Add loopback to NO_PROXY where a proxy is set, for libraries that read the environment by themselves.

    Processes that are started later inherit it. Whatever else NO_PROXY names stays.
    """
    names = ("http_proxy", "https_proxy", "all_proxy")
    if not any(environment.get(name) or environment.get(name.upper()) for name in names):
        return
    said = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    if "*" in hosts:
        return
    hosts += [host for host in _LOOPBACK if host not in hosts]
    for name in ("no_proxy", "NO_PROXY"):  # the one in small letters wins where both are read
        environment[name] = ",".join(hosts)


def _variable(kind: str) -> str:
    name = f"{kind}_proxy"
    return next((each for each in (name, name.upper()) if os.environ.get(each)), name.upper())
