"""What a standby needs at its primary (a role, a slot), what it is told of it, and the proof that it streams."""

import secrets
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from depot_ops.durable import write_private
from depot_ops.postgres.wal.names import parse_lsn
from depot_ops.replicas.nodes import HERE, Node, Nodes, ReplicaError
from depot_ops.replicas.server import Server

CONNECT_TIMEOUT_SECONDS = 10
POLL_SECONDS = 0.02
# A standby that is gone must not fill the primary's disk: beyond this its slot is given up, and the archive helps.
MAX_SLOT_WAL_KEEP_SIZE = "10GB"

_SLOT_EXISTS = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
_RECEIVER = """
SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, '0/0'),
       (SELECT status FROM pg_stat_wal_receiver)
"""
_SEES_IT_STREAM = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming')"


@dataclass(frozen=True, slots=True)
class PrimaryFacts:
    """What the primary says of itself."""

    system_identifier: int
    major: int
    port: int
    data: Path
    timeline: int
    listen_addresses: str
    socket_directories: str
    syncs: bool
    """Not where nothing has to outlive the machine; then neither do its copies."""
    host: str
    """This one, where its data directory is found here; else as it was connected to."""


_FACTS = """
SELECT (SELECT system_identifier FROM pg_control_system()), current_setting('server_version_num')::int / 10000,
       current_setting('port')::int, current_setting('data_directory'),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int,
       current_setting('listen_addresses'), current_setting('unix_socket_directories'),
       current_setting('fsync')::bool
WHERE NOT pg_is_in_recovery()
"""


def connected(conninfo: str, timeout_seconds: int = CONNECT_TIMEOUT_SECONDS) -> psycopg.Connection[Any]:
    """Each statement commits by itself. Raises psycopg.OperationalError."""
    return psycopg.connect(
        conninfo,
        autocommit=True,
        connect_timeout=timeout_seconds,
        application_name="depot-ops replica",
        # Whoever mends the replication must not wait for it.
        options="-c synchronous_commit=local",
        # A server that is gone without a word is noticed.
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
    )


def facts_of_primary(connection: psycopg.Connection[Any]) -> PrimaryFacts:
    """Raises ReplicaError when it is none."""
    row = connection.execute(_FACTS).fetchone()
    if row is None:
        raise ReplicaError("the server that was named as the primary is a standby: name the one that takes writes")
    system_identifier, major, port, data, timeline, listen_addresses, socket_directories, syncs = row
    host = HERE if Path(data).is_dir() else connection.info.host
    return PrimaryFacts(
        system_identifier, major, port, Path(data), timeline, listen_addresses, socket_directories, syncs, host
    )


def admit(connection: psycopg.Connection[Any], node: Node, passfile: Path, server: Server) -> None:
    """Let `node` stream from the primary behind `connection`: its own role with a new password, and its slot."""
    admit_role(connection, node, passfile, server)
    make_slot(connection, node)


def admit_role(connection: psycopg.Connection[Any], node: Node, passfile: Path, server: Server) -> None:
    password = secrets.token_urlsafe(24)
    _make_role(connection, node.role, password)
    write_private(passfile, f"*:*:*:{node.role}:{password}")
    server.account.own(passfile)


def make_slot(connection: psycopg.Connection[Any], node: Node) -> None:
    """It keeps the log from now on, not only from when the standby first connects."""
    if connection.execute(_SLOT_EXISTS, (node.slot,)).fetchone() is None:
        connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", (node.slot,))


def bound_slots(connection: psycopg.Connection[Any]) -> None:
    """Limit what slots may keep, where nobody has: without a limit a standby that is gone fills the disk."""
    row = connection.execute("SELECT current_setting('max_slot_wal_keep_size')").fetchone()
    if row and row[0] == "-1":
        value = sql.Literal(MAX_SLOT_WAL_KEEP_SIZE)
        connection.execute(sql.SQL("ALTER SYSTEM SET max_slot_wal_keep_size = {}").format(value))
        connection.execute("SELECT pg_reload_conf()")


def dismiss(connection: psycopg.Connection[Any], node: Node) -> None:
    """Take the slot and the role of `node` away."""
    drop_slot(connection, node.slot)
    connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(node.role)))


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> None:
    """Also while its walsender notices that its standby is gone. Nothing to do where there is none."""
    row = connection.execute(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
    ).fetchone()
    if row is not None:
        connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def _make_role(connection: psycopg.Connection[Any], role: str, password: str) -> None:
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None
    # The server gets a verifier: statements can end up in its log.
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(
        sql.SQL("{verb} ROLE {role} LOGIN REPLICATION PASSWORD {verifier}").format(
            verb=sql.SQL("ALTER" if exists else "CREATE"), role=sql.Identifier(role), verifier=sql.Literal(verifier)
        )
    )


def standby_settings(
    node: Node, nodes: Nodes, primary_port: int, archive: Path | None, host: str = HERE
) -> dict[str, str]:
    """How `node` follows the primary: by stream with the password from a private file, else from the archive."""
    conninfo = make_conninfo(
        "",
        host=host,
        port=primary_port,
        user=node.role,
        passfile=str(nodes.passfile(node)),
        application_name=node.name,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
    )
    return {
        "primary_conninfo": conninfo,
        "primary_slot_name": node.slot,
        "restore_command": restore_command(archive) if archive else "",
        "recovery_target_timeline": "latest",
        "hot_standby": "on",
        "wal_retrieve_retry_interval": "500ms",
    }


def restore_command(archive: Path) -> str:
    """Of the server: it runs `depot-ops wal get` with this interpreter."""
    words = [sys.executable, "-m", "depot_ops", "wal", "get"]
    command = " ".join(shlex.quote(word).replace("%", "%%") for word in words)
    return f"{command} %f %p --archive {shlex.quote(str(archive)).replace('%', '%%')}"


def prove_streaming(primary: psycopg.Connection[Any], standby_conninfo: str, node: Node, timeout_seconds: float) -> str:
    """Write at the primary, and wait until the standby has replayed just that, by stream. Returns the position.

    Raises ReplicaError: a standby that has not proved it is none.
    """
    row = primary.execute("SELECT pg_logical_emit_message(true, 'depot-ops', 'proof')::text").fetchone()
    assert row is not None
    deadline = time.monotonic() + timeout_seconds
    seen = "it was not asked"
    while time.monotonic() < deadline:
        try:
            with connected(standby_conninfo) as standby:
                seen = _streamed_past(primary, standby, node, parse_lsn(row[0]), deadline) or ""
        except psycopg.OperationalError as error:
            seen = f"it does not answer: {str(error).strip()}"
        if not seen:
            return str(row[0])
        time.sleep(POLL_SECONDS)
    raise ReplicaError(f"{node.name} does not stream within {timeout_seconds:g} s: {seen}. See its log")


def _streamed_past(
    primary: psycopg.Connection[Any],
    standby: psycopg.Connection[Any],
    node: Node,
    position: int,
    deadline: float,
) -> str | None:
    """None when it has; else what was seen last."""
    while True:
        row = standby.execute(_RECEIVER).fetchone()
        assert row is not None
        in_recovery, replayed, receiver = row
        if not in_recovery:
            raise ReplicaError(f"{node.name} takes writes: it is no standby")
        sees_it = primary.execute(_SEES_IT_STREAM, (node.name,)).fetchone()
        if receiver == "streaming" and parse_lsn(replayed) >= position and sees_it and sees_it[0]:
            return None
        if time.monotonic() > deadline:
            return f"receiver {receiver or 'none'}, replayed to {replayed}"
        time.sleep(POLL_SECONDS)
