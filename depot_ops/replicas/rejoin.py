"""A server that was the primary becomes a standby of the new one: as it is, rewound, or copied anew."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict

from depot_ops.durable import fsync
from depot_ops.replicas.create import PROOF_TIMEOUT_SECONDS, Place, rebuild_node
from depot_ops.replicas.nodes import Node, ReplicaError
from depot_ops.replicas.server import Server
from depot_ops.replicas.streaming import admit, connected, drop_slot, facts_of_primary, prove_streaming
from depot_ops.replicas.synchronous import tend

# Slots that it had as the primary would keep the log of the standby that it is now for ever.
_OWN_SLOTS = r"SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'depot\_%' AND NOT active"


class Way(StrEnum):
    """How it came back, from the fastest to the surest."""

    STRAIGHT = "straight"
    REWIND = "rewind"
    REBUILD = "rebuild"


class RewindFailed(ReplicaError):
    """pg_rewind changed the directory and did not end: nothing but a rebuild makes it a cluster again."""


class Rejoined(BaseModel):
    """A node that streams from the new primary."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    name: str
    way: Way
    streamed_lsn: str
    duration_seconds: float


def rejoin(place: Place, name: str) -> Rejoined:
    """Make the node `name` a standby of the primary, whatever it was. Raises ReplicaError."""
    with place.nodes.locked():
        node = place.nodes.get(name)
        with connected(place.url) as primary:
            facts = facts_of_primary(primary)
        leader = next((one for one in place.nodes.all() if one.data == facts.data), None)
        if leader is None:
            raise ReplicaError(f"the primary at {facts.data} is no node of {place.nodes.directory}")
        rejoined = rejoin_node(place, leader, node)
        tend(place.nodes, leader.conninfo(place.url), patient=False)
        return rejoined


def rejoin_node(place: Place, leader: Node, node: Node) -> Rejoined:
    """As `rejoin`, for whoever holds the lock."""
    if leader.name == node.name:
        raise ReplicaError(f"{node.name} is the primary: there is nothing to rejoin")
    started = time.monotonic()
    server = place.server(node)
    with connected(leader.conninfo(place.url)) as primary:
        try:
            way = _made_follower(place, primary, leader, server)
            server.bring_up()
            streamed = prove_streaming(primary, node.conninfo(place.url), node, PROOF_TIMEOUT_SECONDS)
            _drop_own_slots(node.conninfo(place.url))
        except RewindFailed:
            way, streamed = Way.REBUILD, rebuild_node(place, node).streamed_lsn
    duration = round(time.monotonic() - started, 3)
    return Rejoined(name=node.name, way=way, streamed_lsn=streamed, duration_seconds=duration)


def _made_follower(place: Place, primary: psycopg.Connection[Any], leader: Node, server: Server) -> Way:
    node = server.node
    with place.nodes.held(node.name, wait_seconds=PROOF_TIMEOUT_SECONDS):
        if place.nodes.is_half_rewound(node.name):
            raise RewindFailed(f"a rewind of {node.data} failed or was interrupted before")
        server.stay_standby()
        server.stop()
        control, facts = server.control(), facts_of_primary(primary)
        if control.system_identifier != facts.system_identifier:
            raise ReplicaError(
                f"{node.data} is of the cluster {control.system_identifier}, the primary of {facts.system_identifier}:"
                " this is not its old self. Remove it, or name the right directory"
            )
        admit(primary, node, place.nodes.passfile(node), server)
        server.configure(place.settings(node, leader.port, leader.host))
        return _rewound(place, primary, leader, server)


def _rewound(place: Place, primary: psycopg.Connection[Any], leader: Node, server: Server) -> Way:
    """Take back what the new primary does not have. Raises RewindFailed."""
    marker = place.nodes.half_rewound(server.node)
    if not server.control().is_clean:
        with _marked(marker):
            _recover_alone(server)
    primary.execute("CHECKPOINT")
    options = [f"--target-pgdata={server.data}", "--source-server=dbname=postgres", "--no-ensure-shutdown"]
    options += ["--restore-target-wal"] if place.archive else []
    with _marked(marker):
        done = server.run("pg_rewind", *options, url=leader.conninfo(place.url))
        if done.returncode != 0:
            raise RewindFailed(f"pg_rewind failed on {server.data}: {done.stderr.strip()}")
        # It took over the source's files, which is no standby and listens elsewhere.
        server.stay_standby()
        server.configure(place.settings(server.node, leader.port, leader.host))
    return Way.STRAIGHT if "no rewind required" in done.stderr + done.stdout else Way.REWIND


@contextmanager
def _marked(marker: Path) -> Iterator[None]:
    """The marker outlives us: until the block has ended well nobody starts the node, or rewinds it again."""
    marker.touch(mode=0o600)
    fsync(marker)
    fsync(marker.parent)
    yield
    marker.unlink()


def _recover_alone(server: Server) -> None:
    """Recovery after a crash, with nobody let in: pg_rewind wants a clean shutdown, and no standby can be alone."""
    server.may_be_primary()
    try:
        done = server.run("postgres", "--single", "-D", str(server.data), "-c", "archive_mode=off", "template1")
    finally:
        server.stay_standby()
    if done.returncode != 0:
        raise RewindFailed(f"{server.data} cannot be recovered after its crash: {done.stderr.strip()[-500:]}")


def _drop_own_slots(conninfo: str) -> None:
    with connected(conninfo) as standby:
        for (slot,) in standby.execute(_OWN_SLOTS).fetchall():
            drop_slot(standby, slot)
