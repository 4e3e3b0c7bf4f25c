"""Ports on loopback."""

import socket
from itertools import cycle, islice
from random import SystemRandom

# Below those of outgoing connections, which begin at 32768 on Linux: one of them could take a port before its server.
SERVER_PORTS = range(20_000, 32_768)
# In an order of this process's own, so that it is never given one twice before it has seen all.
_untried = cycle(SystemRandom().sample(SERVER_PORTS, len(SERVER_PORTS)))


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
    """A port for a server that is started next. Raises OSError when all are taken."""
    for port in islice(_untried, len(SERVER_PORTS)):
        if is_free(port):
            return port
    raise OSError(f"every port from {SERVER_PORTS.start} to {SERVER_PORTS.stop - 1} is taken: stop what holds them")
