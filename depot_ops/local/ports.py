"""Ports on loopback."""

import secrets
import socket

# Below the ports of outgoing connections, which begin at 32768 on Linux.
UNPRIVILEGED = range(20_000, 32_768)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A port that nothing listens on now, and that no outgoing connection will take before it is used."""
    while not is_free(port := secrets.choice(UNPRIVILEGED)):
        pass
    return port
