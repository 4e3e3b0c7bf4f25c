import socket
from itertools import cycle
from pathlib import Path

import pytest

from depot_ops.local import ports


def test_ports_are_distinct_and_no_outgoing_connection_gets_them() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = [ports.any_free() for _ in range(200)]
    assert len(set(given)) == len(given)
    assert max(given) < first_outgoing


def test_a_taken_port_is_passed_over_and_when_all_are_it_says_so(monkeypatch) -> None:
    free = ports.any_free()
    with socket.create_server(("127.0.0.1", ports.any_free())) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "_untried", cycle([taken, free]))
        assert [ports.any_free() for _ in range(3)] == [free] * 3
        monkeypatch.setattr(ports, "_untried", cycle([taken]))
        with pytest.raises(OSError, match="is taken"):
            ports.any_free()
