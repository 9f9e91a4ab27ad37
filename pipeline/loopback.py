"""Which servers only this machine can reach, so that they need no token."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a server on this host (an address, or localhost) can be reached from this machine alone.

    Stricter than `kb_builder.ask.endpoint.proxies.is_loopback`, which asks where a connection ends: one to
    0.0.0.0 ends here, but a server on it is open to all.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
