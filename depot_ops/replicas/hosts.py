"""The servers that the primary's address names, for where no directory of nodes does: those of containers, say.

Nothing here promotes, fences or rebuilds them; but who takes writes and how far each is behind is asked as of nodes.
"""

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg.conninfo import conninfo_to_dict

from depot_ops.evidence import Finding
from depot_ops.replicas.health import Limits, check_replica
from depot_ops.replicas.loss import Answer, ask
from depot_ops.replicas.nodes import only_at
from depot_ops.replicas.single_primary import finding
from depot_ops.replicas.watch import WORKERS, Watched

ANSWER_SECONDS = 3


def named_hosts(url: str) -> list[tuple[str, int]]:
    """Host and port of each server that `url` names, in its order."""
    address = conninfo_to_dict(url)
    hosts = str(address.get("host", "localhost")).split(",")
    ports = str(address.get("port", 5432)).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return [(host, int(port or 5432)) for host, port in zip(hosts, ports, strict=False)]


def watched_hosts(url: str) -> dict[str, str]:
    """The address of each server alone, by the name it is shown by; none where `url` names only one."""
    try:
        named = list(dict.fromkeys(named_hosts(url)))
    except (psycopg.ProgrammingError, ValueError):
        return {}  # it is no address, which every check that uses it says
    if len(named) == 1:
        return {}
    is_told_by_host = len({host for host, _ in named}) == len(named)
    shown = {server: server[0] if is_told_by_host else f"{server[0]}_{server[1]}" for server in named}
    return {re.sub(r"[^a-z0-9]+", "_", name.lower()): only_at(url, *server) for server, name in shown.items()}


def ask_all(servers: dict[str, str]) -> tuple[list[str], list[str]]:
    """By their names and addresses: those that take writes, and those that may and do not say so."""
    with ThreadPoolExecutor(WORKERS) as pool:
        answers = dict(zip(servers, pool.map(ask, servers.values()), strict=True))
    writable = [name for name, answer in answers.items() if answer is Answer.WRITABLE]
    quiet = [name for name, answer in answers.items() if answer in (Answer.SILENT, Answer.REJECTING)]
    return writable, [name for name in quiet if not _refuses(servers[name])]


def _refuses(conninfo: str) -> bool:
    """The host is there and nobody listens: then nobody takes writes either."""
    ((host, port),) = named_hosts(conninfo)
    try:
        with socket.create_connection((host, port), ANSWER_SECONDS):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def watch_hosts(url: str, limits: Limits) -> list[Watched]:
    """How each is; one that takes writes has no lag."""

    def look(name: str, conninfo: str) -> Watched:
        is_primary = ask(conninfo) is Answer.WRITABLE
        return Watched(name, None if is_primary else check_replica(conninfo, url, limits))

    hosts = watched_hosts(url)
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(look, hosts.keys(), hosts.values()))


def check_single_host(url: str) -> Finding:
    """Whether one of them alone takes writes."""
    return finding(*ask_all(watched_hosts(url)))
