"""Where the page may listen: this machine, unless its owner insists."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket


def is_loopback(host: str) -> bool:
    """Tells whether every address of a host is this machine's own.

    Raises:
        ValueError: There is no such host.
    """
    return all(ipaddress.ip_address(address).is_loopback for _, address in _resolve(host))


def listen(host: str, port: int, *, allow_public: bool = False) -> socket.socket:
    """Takes an address, before any work that would be in vain without it.

    Args:
        host: Name or number.
        port: 0 takes any that is free.
        allow_public: Take one that other machines can reach, too.

    Raises:
        ValueError: There is no such address, other machines can reach it, or another program has
            taken the port.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"--port {port}: give one of 0 to {2**16 - 1}")
    if not allow_public and not is_loopback(host):
        raise ValueError(
            f"--host {host}: other machines could reach it, and whoever does sees the gallery's "
            "people without a password; use 127.0.0.1 (through an ssh tunnel from elsewhere), or "
            "give --allow_public"
        )
    family, address = _resolve(host)[0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((address, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"--port {port}: another program listens there; give another, or 0 for any"
            ) from error
        raise ValueError(f"--host {host} --port {port}: {os.strerror(error.errno or 0)}") from error


def _resolve(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host}: no address of this name ({error})") from error
    return [(family, str(address[0])) for family, _, _, _, address in found]
