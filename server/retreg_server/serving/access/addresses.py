"""Where a client is: behind proxies that the settings name, what these say; else the connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

HOST_BITS_OF_SITE = 64  # an IPv6 host has that many addresses of its own
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(names: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and ranges such as 10.0.0.0/8. Raises ValueError."""
    return tuple(ipaddress.ip_network(name, strict=False) for name in names)


def client_address(peer: str, forwarded: Sequence[bytes], proxies: Sequence[Network]) -> str:
    """The address of the client. peer: of the connection. forwarded: lines of X-Forwarded-For.

    Each proxy adds at the end whom it has heard, so the last one that is no proxy of ours is the
    client; what stands before it, a client may have made up.
    """
    chain = [part.strip() for line in forwarded for part in line.decode("latin-1").split(",")]
    found = peer
    while _is_one_of(found, proxies) and chain:
        found = chain.pop()
    return found if _address(found) is not None else peer


def site(host: str) -> str:
    """An address, without the part that an IPv6 host may choose."""
    address = _address(host)
    if address is None or address.version == 4:
        return host
    return str(ipaddress.ip_network((int(address), 128 - HOST_BITS_OF_SITE), strict=False))


def _is_one_of(text: str, proxies: Sequence[Network]) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in proxies)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
