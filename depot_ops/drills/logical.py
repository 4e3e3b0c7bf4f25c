"""Drilling the newest dump: it is loaded into a private cluster, and has to be what its record says."""

import re
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from depot_ops.copies.holdings import look
from depot_ops.drills.proofs import catalogue_answers, catalogue_consistent
from depot_ops.drills.record import DrillRecord
from depot_ops.drills.site import Site, Workspace
from depot_ops.evidence import Finding, Status
from depot_ops.places import Place
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import client_environment, running
from depot_ops.postgres.cluster import initdb
from depot_ops.postgres.dump_checks import DumpCheck, prove
from depot_ops.postgres.dump_record import BackupRecord, find_backups, load_record
from depot_ops.postgres.dump_source import open_snapshot
from depot_ops.postgres.recovery import CUT_TIES, SPARE_BYTES, serving
from depot_ops.postgres.recovery_plan import RestoreRefused

COUNTED = "rows_restored"
OBJECTS = "objects_restored"
SUPERUSER = "postgres"
JOBS = 2
# Tables, and their indexes beside them, from a script that has neither page headers nor free space.
BYTES_PER_SCRIPT_BYTE = 3
PIECE_BYTES = 1 << 20
NAMED_DIFFERENCES = 10
SETTINGS = CUT_TIES | {"max_wal_size": "256MB"}

_NAMES_ROLES = (b"ALTER ", b"GRANT ", b"REVOKE ", b"CREATE POLICY ")
_ROLE = re.compile(rb'\b(?:TO|FROM|FOR ROLE) ("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)')
_WORDS = {"public", "current_user", "session_user"}


def drill_logical(site: Site, record: DrillRecord, workspace: Workspace) -> None:
    """Load the newest dump into `workspace`, prove it, and fill in `record`. Raises what stops it."""
    started = time.monotonic()
    dump, expected = _newest_dump(site, workspace)
    record.backup = dump.name
    record.figures |= {"rpo_seconds": round((datetime.now(UTC) - expected.started_at).total_seconds(), 3)}
    site.say(f"checking {dump.name}")
    checksum = prove(dump, expected, site.binaries, DumpCheck.CHECKSUM)
    record.findings.append(checksum)
    if checksum.status is not Status.HEALTHY:
        return
    _check_room(dump, site.binaries, workspace.home)
    data = workspace.home / "data"
    initdb(site.binaries, site.account, data, "--auth=trust")
    fetched = time.monotonic()
    with serving(data, SETTINGS, SUPERUSER, workspace.home, workspace.lock, site.binaries, site.account) as (server, _):
        site.say(f"loading {dump.name}")
        url = _make_database(server, expected.database, _roles(dump, site.binaries))
        command = [str(site.binaries.path("pg_restore")), "--exit-on-error", f"--jobs={JOBS}", "--no-password"]
        command += [f"--dbname={expected.database}", str(dump)]
        with running(command, client_environment(url)):
            pass
        loaded = time.monotonic()
        with psycopg.connect(url, autocommit=True) as depot:
            record.findings.append(catalogue_answers(depot))
            opened = time.monotonic()
            record.figures |= {
                "fetch_seconds": round(fetched - started, 3),
                "replay_seconds": round(loaded - fetched, 3),
                "open_seconds": round(opened - loaded, 3),
                "rto_seconds": round(opened - started, 3),
                "dump_bytes": expected.size_bytes,
            }
            site.say("counting rows and objects")
            record.findings += _as_dumped(url, expected)
            record.findings.append(catalogue_consistent(depot))
            record.figures |= {"verify_seconds": round(time.monotonic() - opened, 3)}


def _newest_dump(site: Site, workspace: Workspace) -> tuple[Path, BackupRecord]:
    database = conninfo_to_dict(site.ops_url).get("dbname")
    if site.copy is not None:
        return _fetched(site.copy, database, workspace.home / "copy")
    for dump in reversed(find_backups(site.backup_dir)):
        if (record := load_record(dump)).database == database:
            return dump, record
    raise RestoreRefused(
        f"there is no dump of {database} in {site.backup_dir}: take one with `depot-ops backup logical`"
    )


def _fetched(place: Place, database: str | int | None, home: Path) -> tuple[Path, BackupRecord]:
    """The newest dump that is whole at the second place."""
    held = look(place, home)
    held.fetch_dump_records()
    for dump in reversed(held.dumps()):
        if held.problem_of_dump(dump) is None and (record := load_record(dump)).database == database:
            _check_free(home, SPARE_BYTES + record.size_bytes)
            for path in held.files_of(dump):
                held.fetch(held.key_of(path))
            return dump, record
    raise RestoreRefused(f"there is no dump of {database} at {place}: run `depot-ops backup copy`")


def _check_room(dump: Path, binaries: Binaries, home: Path) -> None:
    script_bytes = 0
    with running(
        [str(binaries.path("pg_restore")), "--file=-", str(dump)], client_environment(), stdout=subprocess.PIPE
    ) as reading:
        assert reading.stdout is not None
        while piece := reading.stdout.read(PIECE_BYTES):
            script_bytes += len(piece)
    _check_free(home, SPARE_BYTES + BYTES_PER_SCRIPT_BYTE * script_bytes)


def _check_free(home: Path, needed_bytes: int) -> None:
    if (free := shutil.disk_usage(home).free) < needed_bytes:
        raise RestoreRefused(
            f"{home} is on a disk with {free:,} free bytes, the drill needs about {needed_bytes:,}: set DRILL_DIR to a"
            " larger one"
        )


def _roles(dump: Path, binaries: Binaries) -> set[str]:
    """The roles that the dump's statements name. It does not hold the roles themselves."""
    command = [str(binaries.path("pg_restore")), "--schema-only", "--file=-", str(dump)]
    roles: set[str] = set()
    with running(command, client_environment(), stdout=subprocess.PIPE) as reading:
        assert reading.stdout is not None
        for line in reading.stdout:
            if line.startswith(_NAMES_ROLES):
                roles |= {match.decode() for match in _ROLE.findall(line)}
    return {name[1:-1].replace('""', '"') if name.startswith('"') else name for name in roles if name not in _WORDS}


def _make_database(server: psycopg.Connection[Any], database: str, roles: set[str]) -> str:
    for role in sorted(roles - {SUPERUSER}):
        server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    if database != server.info.dbname:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return make_conninfo(host=server.info.host, port=server.info.port, user=SUPERUSER, dbname=database)


def _as_dumped(url: str, expected: BackupRecord) -> list[Finding]:
    with open_snapshot(url) as restored:
        rows, objects = restored.count_rows(), restored.count_objects()
    return [
        _same(COUNTED, "rows", expected.row_counts, rows),
        _same(OBJECTS, "objects", expected.source_objects, objects),
    ]


def _same(check: str, what: str, expected: dict[str, int], seen: dict[str, int]) -> Finding:
    names = sorted(name for name in expected.keys() | seen.keys() if expected.get(name) != seen.get(name))
    shown = "; ".join(
        f"{name}: {seen.get(name, 'none')} instead of {expected.get(name, 'none')}"
        for name in names[:NAMED_DIFFERENCES]
    )
    detail = f"{what} differ: {shown}" if names else f"{sum(seen.values()):,} {what}, as the record says"
    status = Status.UNHEALTHY if names else Status.HEALTHY
    return Finding(check=check, status=status, detail=detail, figures={what: sum(seen.values())})
