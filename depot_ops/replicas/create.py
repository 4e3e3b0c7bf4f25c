"""Making a standby, making it anew, and taking it away."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict

from depot_ops.local import ports
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import ToolFailed, client_environment, running
from depot_ops.postgres.wal.hooks import HookExit
from depot_ops.replicas.nodes import HERE, Node, Nodes, ReplicaError
from depot_ops.replicas.server import Server
from depot_ops.replicas.streaming import (
    PrimaryFacts,
    admit,
    bound_slots,
    connected,
    dismiss,
    facts_of_primary,
    prove_streaming,
    standby_settings,
)
from depot_ops.replicas.synchronous import release, tend

PROOF_TIMEOUT_SECONDS = 60.0
FENCE_SECONDS = 30.0
PRIMARY = "primary"
_ROLE = """
SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text,
       (SELECT status FROM pg_stat_wal_receiver)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the operations on nodes happen, and with what."""

    nodes: Nodes
    url: str
    """The primary, wherever it is now, as a superuser."""
    binaries: Binaries
    account: ServerAccount
    archive: Path | None = None
    """The archive of the log, as what a standby falls back to."""
    fence_command: tuple[str, ...] = ()
    """How a node on another host is stopped for good; {name}, {host}, {port} and {data} are filled in."""
    fence_seconds: float = FENCE_SECONDS

    def server(self, node: Node) -> Server:
        return Server(node, self.nodes, self.binaries, self.account)

    def settings(self, node: Node, primary_port: int, host: str = HERE) -> dict[str, str]:
        return standby_settings(node, self.nodes, primary_port, self.archive, host)


class ReplicaCreated(BaseModel):
    """What was made, and the position up to which it has proved that it streams."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    name: str
    port: int
    data: Path
    slot: str
    system_identifier: int
    timeline: int
    streamed_lsn: str
    archive_fallback: bool
    copy_seconds: float
    duration_seconds: float


def create(place: Place, name: str, port: int | None = None) -> ReplicaCreated:
    """Make the standby `name`, start it, and prove that it streams. Raises ReplicaError; then nothing of it is left."""
    with place.nodes.locked():
        node = Node(name=name, data=place.nodes.home(name) / "data", port=port or ports.any_free())
        made = _create(place, node)
        tend(place.nodes, place.url, patient=False)
        return made


def _create(place: Place, node: Node) -> ReplicaCreated:
    started = time.monotonic()
    with connected(place.url) as primary:
        facts = facts_of_primary(primary)
        record_primary(place, facts)
        if place.nodes.has(node.name):
            raise ReplicaError(f"there is a node {node.name} already: take another name, or rebuild it")
        node = node.model_copy(update={"listen_addresses": facts.listen_addresses})
        try:
            with place.nodes.held(node.name):
                copy(place, primary, facts, node)
            copied = time.monotonic()
            place.server(node).bring_up()
            streamed = prove_streaming(primary, node.conninfo(place.url), node, PROOF_TIMEOUT_SECONDS)
        except BaseException:
            _take_away(place, primary, node)
            raise
    place.nodes.save(node)
    return ReplicaCreated(
        name=node.name,
        port=node.port,
        data=node.data,
        slot=node.slot,
        system_identifier=facts.system_identifier,
        timeline=facts.timeline,
        streamed_lsn=streamed,
        archive_fallback=place.archive is not None,
        copy_seconds=round(copied - started, 3),
        duration_seconds=round(time.monotonic() - started, 3),
    )


def copy(place: Place, primary: psycopg.Connection[Any], facts: PrimaryFacts, node: Node) -> None:
    """Copy the primary into the node's data directory, which appears only when it is whole and a standby."""
    _check(place, facts, node)
    home = node.data.parent
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.account.own(home)
    admit(primary, node, place.nodes.passfile(node), place.server(node))
    bound_slots(primary)
    partial = node.data.with_name(f"{node.data.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        str(place.binaries.path("pg_basebackup")),
        *(f"--pgdata={partial}", "--wal-method=stream", "--checkpoint=fast", "--no-password"),
        *(f"--slot={node.slot}", f"--label=replica {node.name}"),
    ]
    command += [] if facts.syncs else ["--no-sync"]
    try:
        with running(command, client_environment(node_of_primary(place, facts))):
            pass
        place.account.own_tree(partial)
        _make_standby(place, node.model_copy(update={"data": partial}), facts)
        partial.rename(node.data)
    except ToolFailed as error:
        raise ReplicaError(f"the primary could not be copied: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def node_of_primary(place: Place, facts: PrimaryFacts) -> str:
    """The address of the server that said `facts`, which of several it be."""
    return Node(name=PRIMARY, data=facts.data, port=facts.port, host=facts.host).conninfo(place.url)


def _make_standby(place: Place, node: Node, primary: PrimaryFacts) -> None:
    server = place.server(node)
    # Where the primary's configuration lies outside its data directory, the copy has none.
    for name in ("postgresql.conf", "pg_ident.conf"):
        path = node.data / name
        if not path.exists():
            path.touch(mode=0o600)
            place.account.own(path)
    server.stay_standby()
    server.configure(place.settings(node, primary.port, primary.host))


def _check(place: Place, facts: PrimaryFacts, node: Node) -> None:
    if node.data.exists():
        raise ReplicaError(f"{node.data} exists: a standby is made in a new directory. Move it away")
    if facts.major != place.binaries.major:
        raise ReplicaError(
            f"the primary is PostgreSQL {facts.major}, the programs in {place.binaries.bindir} are"
            f" {place.binaries.version}: set DEPOT_PG_BINDIR to PostgreSQL {facts.major}"
        )
    if not place.account.can_reach(place.nodes.directory):
        raise ReplicaError(f"the account that runs PostgreSQL cannot enter {place.nodes.directory}: name another")
    if not ports.is_free(node.port):
        raise ReplicaError(f"port {node.port} is taken: name another with --port")
    if place.archive and not can_fall_back(place.account, place.archive):
        raise ReplicaError(
            f"the account that runs PostgreSQL cannot run {sys.executable} or read {place.archive}, so the archive"
            " would be no help: give it access, or leave --archive out"
        )


def can_fall_back(account: ServerAccount, archive: Path) -> bool:
    """Whether a server could fetch the log from the archive by itself: tried as it would."""
    command = [sys.executable, "-m", "depot_ops", "wal", "get", "00000001.history", "nowhere", f"--archive={archive}"]
    try:
        tried = subprocess.run(
            command, cwd="/", env=client_environment(), capture_output=True, check=False, **account.process_owner()
        )
    except OSError:
        return False
    # It runs, and says that it was called outside a data directory.
    return tried.returncode == HookExit.UNKNOWN and account.can_reach(archive)


def record_primary(place: Place, facts: PrimaryFacts) -> None:
    """The primary is a node too: it is watched, and becomes a standby one day."""
    if any((node.host, node.data) == (facts.host, facts.data) for node in place.nodes.all()):
        return
    if place.nodes.has(PRIMARY):
        known = place.nodes.get(PRIMARY).data
        raise ReplicaError(f"the node {PRIMARY} is {known}, but {facts.data} takes writes: is that the right primary?")
    place.nodes.save(
        Node(
            name=PRIMARY,
            data=facts.data,
            port=facts.port,
            host=facts.host,
            listen_addresses=facts.listen_addresses,
            socket_directories=facts.socket_directories,
        )
    )


def remove(place: Place, name: str) -> None:
    """Stop the standby `name`, delete its data, and drop its slot and its role at the primary."""
    with place.nodes.locked():
        node = place.nodes.get(name)
        with connected(place.url) as primary:
            _refuse_primary(facts_of_primary(primary), node)
            release(place.nodes, place.url, node)
            _take_away(place, primary, node)


def rebuild(place: Place, name: str) -> ReplicaCreated:
    """Copy the primary anew into the node `name`: for one that cannot follow any more."""
    with place.nodes.locked():
        node = place.nodes.get(name)
        release(place.nodes, place.url, node, comes_back=True)
        made = rebuild_node(place, node)
        tend(place.nodes, place.url, patient=False)
        return made


def rebuild_node(place: Place, node: Node) -> ReplicaCreated:
    """As `rebuild`, for whoever holds the lock."""
    with connected(place.url) as primary, place.nodes.held(node.name):
        _refuse_primary(facts_of_primary(primary), node)
        place.server(node).stop()
        shutil.rmtree(node.data, ignore_errors=True)
        dismiss(primary, node)
    place.nodes.forget(node)
    return _create(place, node)


def _refuse_primary(facts: PrimaryFacts, node: Node) -> None:
    if facts.data == node.data:
        raise ReplicaError(f"{node.name} is the primary: switch over to another node first")


def _take_away(place: Place, primary: psycopg.Connection[Any], node: Node) -> None:
    if node.data.is_dir():
        place.server(node).stop()
        shutil.rmtree(node.data)
    if node.data.parent == place.nodes.home(node.name):
        shutil.rmtree(node.data.parent, ignore_errors=True)
    dismiss(primary, node)
    place.nodes.forget(node)


def described(place: Place, node: Node) -> dict[str, str | int | None]:
    """What a node is at this moment."""
    try:
        with connected(node.conninfo(place.url)) as connection:
            row = connection.execute(_ROLE).fetchone()
            assert row is not None
            role, lsn, receiver = row
    except psycopg.OperationalError as error:
        role, lsn, receiver = f"does not answer: {str(error).strip()}", None, None
    return {
        "name": node.name,
        "port": node.port,
        "role": role,
        "lsn": lsn,
        "receiver": receiver,
        "data": str(node.data),
    }
