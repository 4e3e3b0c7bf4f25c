"""How a cluster is that Patroni keeps, and what people ask of it: the counterpart of watch, single_primary, promotion.

Who belongs to it, who leads and who streams is Patroni's word. How far a standby is behind and who takes writes is
asked of the servers themselves: a Patroni that was killed says nothing, and its server goes on.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
from psycopg.conninfo import make_conninfo

from depot_api.epochs import EpochFile
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.replicas.health import Limits, ReplicaHealth, ReplicaStatus, check_replica
from depot_ops.replicas.hosts import ask_all, named_hosts
from depot_ops.replicas.nodes import ReplicaError, only_at
from depot_ops.replicas.patroni import WORKERS, Listed, Patroni, PatroniError, Switchover, View
from depot_ops.replicas.promotion import DATABASE, Refused, begin_epoch
from depot_ops.replicas.single_primary import CHECK as SINGLE_PRIMARY
from depot_ops.replicas.streaming import connected
from depot_ops.replicas.synchronous import CHECK as SYNCHRONOUS
from depot_ops.replicas.watch import Watched

ANSWER_SECONDS = 3
TAKES_OVER_SECONDS = 60.0
# The callback waits for the promotion's end, and takes a connection.
EPOCH_SECONDS = 15.0
REBUILD_SECONDS = 6 * 3600.0
POLL_SECONDS = 0.1
_IDENTITY = "SELECT pg_postmaster_start_time(), current_setting('data_directory')"
_NEWEST_EPOCH = "SELECT epoch, node FROM cluster_epochs ORDER BY epoch DESC LIMIT 1"


# Watching -----------------------------------------------------------------------------------------------------------


def watch_members(patroni: Patroni, url: str, limits: Limits, names: dict[str, str]) -> list[Watched]:
    """Each address of `names`, which gives it the name it is shown by."""
    try:
        view = patroni.look()
    except PatroniError as error:
        return [Watched(name, _unknown(address, str(error))) for address, name in names.items()]

    def look(address: str) -> Watched:
        return Watched(names[address], health_of(view, address, url, limits))

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(look, names))


def health_of(view: View, address: str, url: str, limits: Limits) -> ReplicaHealth | None:
    """Of the member at the REST `address`; None when it is the primary."""
    member = view.members.get(address)
    if member is None:
        return _unknown(address, f"Patroni does not answer: {view.silent.get(address, 'it was not asked')}")
    if member.is_primary:
        return None
    if not member.streams:
        how = member.replication_state or "no receiver"
        reason = f"{member.name} is {member.state} and does not stream ({how}): see Patroni's log on its host"
        return ReplicaHealth(replica=address, status=ReplicaStatus.DISCONNECTED, reason=reason)
    try:
        return check_replica(view.server_of(member.name, url), url, limits)
    except PatroniError as error:
        return _unknown(address, str(error))


def _unknown(address: str, reason: str) -> ReplicaHealth:
    return ReplicaHealth(replica=address, status=ReplicaStatus.UNKNOWN, reason=reason)


def check_synchronous_mode(patroni: Patroni) -> Finding:
    """Whether a standby has what is acknowledged, where Patroni's synchronous_mode is on."""
    try:
        if not patroni.is_synchronous():
            detail = "Patroni's synchronous_mode is off: nothing waits for a standby"
            return Finding(check=SYNCHRONOUS, status=Status.HEALTHY, detail=detail)
        listed = patroni.look().listed.values()
    except PatroniError as error:
        return Finding(check=SYNCHRONOUS, status=Status.UNKNOWN, detail=str(error))
    in_sync = [one.name for one in listed if one.role in ("sync_standby", "quorum_standby")]
    if in_sync:
        detail = f"Patroni has commits wait for {', '.join(in_sync)}"
        return Finding(check=SYNCHRONOUS, status=Status.HEALTHY, detail=detail)
    detail = "Patroni's synchronous_mode is on and no standby is in sync: what is acknowledged is on the primary only"
    return Finding(check=SYNCHRONOUS, status=Status.UNHEALTHY, detail=detail)


def check_single_leader(patroni: Patroni, url: str, epochs: EpochFile | None = None) -> Finding:
    """Whether one server alone takes writes, whether it is Patroni's, and whether its epoch was begun.

    The service is told of that epoch: one that writes to an old primary whose Patroni died would never hear of it.
    """
    try:
        view = patroni.look()
        servers = _servers(view, url)
        problem = _hand_on_epoch(view, url, epochs)
    except (PatroniError, psycopg.ProgrammingError, OSError) as error:
        return Finding(check=SINGLE_PRIMARY, status=Status.UNKNOWN, detail=str(error).strip())
    answering, silent = ask_all(servers)
    writable = list({_identity(servers[name]): name for name in answering}.values())
    figures: Figures = {"writable_nodes": len(writable), "silent_nodes": len(silent)}
    status, detail = _judged(view.leader, writable, silent, problem)
    return Finding(check=SINGLE_PRIMARY, status=status, detail=detail, figures=figures)


def _servers(view: View, url: str) -> dict[str, str]:
    """By the name of the member. Patroni forgets a lost one, which the address of the primary still names."""
    known = {(one.host, one.port or 5432): one.name for one in view.listed.values() if one.host is not None}
    return {
        known.get((host, port), f"{host}:{port}"): only_at(url, host, port)
        for host, port in dict.fromkeys([*known, *named_hosts(url)])
    }


def _identity(conninfo: str) -> tuple[object, ...]:
    """One server may have several addresses: a name, a number, a proxy's."""
    try:
        with connected(conninfo, ANSWER_SECONDS) as connection:
            row = connection.execute(_IDENTITY).fetchone()
    except psycopg.Error:  # it took writes a moment ago
        return (conninfo,)
    return tuple(row or (conninfo,))


def _hand_on_epoch(view: View, url: str, epochs: EpochFile | None) -> str | None:
    """What is to be said where the leader was promoted and no epoch begun; None where all is well."""
    leader = view.leader
    if leader is None or leader.timeline == 1:
        return None
    try:
        epoch = await_epoch(view, leader.name, url)
    except psycopg.errors.UndefinedTable:  # no depot yet
        return None
    except (ReplicaError, psycopg.Error) as error:
        return str(error).strip()
    if epochs is not None:
        epochs.raise_to(epoch)
    return None


def _judged(leader: Listed | None, writable: list[str], silent: list[str], problem: str | None) -> tuple[Status, str]:
    if len(writable) > 1:
        named, right = ", ".join(writable), leader.name if leader else "the one of the last epoch"
        return Status.UNHEALTHY, f"{named} take writes: stop all but {right} at once, and start Patroni where it ended"
    if not writable:
        return Status.UNHEALTHY, f"no server takes writes; for Patroni {leader.name if leader else 'nobody'} leads"
    if silent:
        return Status.UNKNOWN, f"{', '.join(silent)} may run and does not answer: nobody knows whether it takes writes"
    if leader is None:
        return Status.UNKNOWN, f"{writable[0]} takes writes, and for Patroni nobody leads: is its consensus store up?"
    if problem is not None:
        return Status.UNHEALTHY, problem
    return Status.HEALTHY, f"{writable[0]} alone takes writes"


# Asking -------------------------------------------------------------------------------------------------------------


def await_epoch(view: View, name: str, url: str) -> int:
    """The epoch that `name` leads; Patroni's callback begins it. Raises ReplicaError."""
    deadline = time.monotonic() + EPOCH_SECONDS
    with connected(make_conninfo(view.server_of(name, url), dbname=DATABASE), ANSWER_SECONDS) as connection:
        while True:
            row = connection.execute(_NEWEST_EPOCH).fetchone()
            if row is not None and row[1] == name:
                return int(row[0])
            if time.monotonic() > deadline:
                raise ReplicaError(
                    f"{name} leads and began no cluster epoch: the depot cannot tell it from the primary before. Does"
                    " Patroni call deploy/patroni/begin_epoch.sh (on_role_change)? Now: `depot-ops replica adopt`"
                )
            time.sleep(POLL_SECONDS)


def switch_over(patroni: Patroni, name: str, url: str) -> Switchover:
    """Have Patroni make `name` the primary. Raises ReplicaError."""
    started_at, started = datetime.now(UTC), time.monotonic()
    view = patroni.look()
    leader = view.leader
    if leader is None:
        raise Refused("for Patroni nobody leads: there is nothing to switch over from. It promotes by itself")
    if leader.name == name:
        raise ReplicaError(f"{name} is the primary already")
    target = view.address_of(name)
    patroni.switch_over(view.address_of(leader.name), leader.name, name)
    promoted = patroni.wait_for(
        target, lambda one: one.is_primary, TAKES_OVER_SECONDS, f"{name} did not become the primary"
    )
    return Switchover(
        promoted=name,
        demoted=leader.name,
        timeline=promoted.timeline,
        epoch=await_epoch(view, name, url),
        started_at=started_at,
        duration_seconds=round(time.monotonic() - started, 3),
    )


def rebuild(patroni: Patroni, name: str) -> None:
    """Have Patroni copy the primary anew into `name`, and wait until it streams. Raises ReplicaError."""
    view = patroni.look()
    address = view.address_of(name)
    before = view.members[address].postmaster_start_time
    patroni.reinitialize(address)
    patroni.wait_for(
        address,
        lambda one: one.streams and one.postmaster_start_time != before,
        REBUILD_SECONDS,
        f"{name} does not stream",
    )


def adopt(patroni: Patroni, url: str, epochs: EpochFile, reason: str) -> int:
    """Begin an epoch above all that the service has seen, at the server that leads. Raises ReplicaError."""
    if not reason.strip():
        raise Refused("an older state is adopted with a reason only: it is kept with the epoch")
    view = patroni.look()
    leader = view.leader
    if leader is None:
        raise Refused("for Patroni nobody leads: nothing can be adopted")
    with connected(make_conninfo(view.server_of(leader.name, url), dbname=DATABASE)) as connection:
        return begin_epoch(connection, leader.name, reason, epochs)
