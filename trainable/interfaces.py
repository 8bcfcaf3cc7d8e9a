"""The network interface over which the workers of a trial exchange gradients. Imports neither torch nor Ray."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915
"""Linux's request for the address of an interface."""


def use_interface_of(address: str) -> None:
    """Let gloo connect to other hosts over the interface with this IPv4 address.

    By default, gloo uses the address of the host's own name, which Debian and Ubuntu map to the host itself. A setting
    of the user is kept, and the default if no interface has the address.
    """
    if (name := interface_of(address)) is not None:
        os.environ.setdefault(GLOO_INTERFACE, name)


def interface_of(address: str) -> str | None:
    """Name of the interface with an IPv4 address; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no IPv4 address
                found = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
