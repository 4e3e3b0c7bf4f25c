"""Drilling the newest dump of each database: all are loaded into one private cluster, with the roles of theirs.

Each has to be what its record says. The figures are those of the depot's, which comes first: the others wait for it.
"""

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
from depot_ops.evidence import Finding, Status, worst
from depot_ops.places import Place
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import client_environment, running
from depot_ops.postgres.cluster import initdb
from depot_ops.postgres.cluster_globals import restore_roles
from depot_ops.postgres.dump_checks import DumpCheck, prove
from depot_ops.postgres.dump_record import BackupRecord, load_record, newest_backups
from depot_ops.postgres.dump_source import open_snapshot
from depot_ops.postgres.recovery import CUT_TIES, SPARE_BYTES, serving
from depot_ops.postgres.recovery_plan import RestoreRefused

COUNTED = "rows_restored"
OBJECTS = "objects_restored"
ROLES = "roles_restored"
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
    """Load the newest dumps into `workspace`, prove them, and fill in `record`. Raises what stops it."""
    started = time.monotonic()
    dumps = _newest_dumps(site, workspace)
    dump, expected = dumps[0]
    record.backup = dump.name
    record.figures |= {"rpo_seconds": round((datetime.now(UTC) - expected.started_at).total_seconds(), 3)}
    record.figures |= {"databases": len(dumps)}
    for path, its in dumps:
        site.say(f"checking {path.name}")
        record.findings.append(prove(path, its, site.binaries, DumpCheck.CHECKSUM))
    if worst(record.findings) is not Status.HEALTHY:
        return
    _check_room([path for path, _ in dumps], site.binaries, workspace.home)
    data = workspace.home / "data"
    initdb(site.binaries, site.account, data, "--auth=trust")
    fetched = time.monotonic()
    with serving(data, SETTINGS, SUPERUSER, workspace.home, workspace.lock, site.binaries, site.account) as (server, _):
        url = _load(site, server, dump, expected)
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
        for path, its in dumps[1:]:
            record.findings += _as_dumped(_load(site, server, path, its), its)
        record.findings.append(_roles_are_there(server, [its for _, its in dumps]))
        record.figures |= {"verify_seconds": round(time.monotonic() - opened, 3)}


def _newest_dumps(site: Site, workspace: Workspace) -> list[tuple[Path, BackupRecord]]:
    """The newest dump of each database, the depot's first."""
    depot = conninfo_to_dict(site.ops_url).get("dbname")
    if site.copy is not None:
        dumps = _fetched(site.copy, workspace.home / "copy")
    else:
        dumps = [(dump, load_record(dump)) for dump in newest_backups(site.backup_dir)]
    dumps.sort(key=lambda dump: dump[1].database != depot)
    if not dumps or dumps[0][1].database != depot:
        where, what = (site.copy, "backup copy") if site.copy else (site.backup_dir, "backup logical")
        raise RestoreRefused(f"there is no dump of {depot} in {where}: take one with `depot-ops {what}`")
    return dumps


def _fetched(place: Place, home: Path) -> list[tuple[Path, BackupRecord]]:
    """The newest dump of each database that is whole at the second place."""
    held = look(place, home)
    held.fetch_dump_records()
    newest = {load_record(dump).database: dump for dump in held.dumps() if held.problem_of_dump(dump) is None}
    dumps = [(dump, load_record(dump)) for dump in newest.values()]
    _check_free(home, SPARE_BYTES + sum(record.size_bytes for _, record in dumps))
    for dump, _ in dumps:
        for path in held.files_of(dump):
            held.fetch(held.key_of(path))
    return dumps


def _load(site: Site, server: psycopg.Connection[Any], dump: Path, expected: BackupRecord) -> str:
    """Restore `dump` into a database of the same name, after the roles of its cluster. Returns its address."""
    site.say(f"loading {dump.name}")
    if expected.globals is not None:
        restore_roles(server, expected.globals)
    else:
        _make_roles(server, _roles(dump, site.binaries))
    url = _make_database(server, expected.database)
    command = [str(site.binaries.path("pg_restore")), "--exit-on-error", f"--jobs={JOBS}", "--no-password"]
    command += [f"--dbname={expected.database}", str(dump)]
    with running(command, client_environment(url)):
        pass
    return url


def _check_room(dumps: list[Path], binaries: Binaries, home: Path) -> None:
    script_bytes = sum(_script_bytes(dump, binaries) for dump in dumps)
    _check_free(home, SPARE_BYTES + BYTES_PER_SCRIPT_BYTE * script_bytes)


def _script_bytes(dump: Path, binaries: Binaries) -> int:
    size_bytes = 0
    with running(
        [str(binaries.path("pg_restore")), "--file=-", str(dump)], client_environment(), stdout=subprocess.PIPE
    ) as reading:
        assert reading.stdout is not None
        while piece := reading.stdout.read(PIECE_BYTES):
            size_bytes += len(piece)
    return size_bytes


def _check_free(home: Path, needed_bytes: int) -> None:
    if (free := shutil.disk_usage(home).free) < needed_bytes:
        raise RestoreRefused(
            f"{home} is on a disk with {free:,} free bytes, the drill needs about {needed_bytes:,}: set DRILL_DIR to a"
            " larger one"
        )


def _roles(dump: Path, binaries: Binaries) -> set[str]:
    """The roles that the statements of a dump name which was taken by a version that did not keep roles."""
    command = [str(binaries.path("pg_restore")), "--schema-only", "--file=-", str(dump)]
    roles: set[str] = set()
    with running(command, client_environment(), stdout=subprocess.PIPE) as reading:
        assert reading.stdout is not None
        for line in reading.stdout:
            if line.startswith(_NAMES_ROLES):
                roles |= {match.decode() for match in _ROLE.findall(line)}
    return {name[1:-1].replace('""', '"') if name.startswith('"') else name for name in roles if name not in _WORDS}


def _make_roles(server: psycopg.Connection[Any], roles: set[str]) -> None:
    for role in sorted(roles - _present_roles(server)):
        server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))


def _present_roles(server: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in server.execute("SELECT rolname FROM pg_roles").fetchall()}


def _roles_are_there(server: psycopg.Connection[Any], dumped: list[BackupRecord]) -> Finding:
    """Have the saved statements made every role? Running them proves that they can be run."""
    saved = {role for record in dumped if record.globals for role in record.globals.roles}
    missing = sorted(saved - _present_roles(server))
    detail = f"not made: {', '.join(missing[:NAMED_DIFFERENCES])}" if missing else f"all {len(saved)} saved roles"
    status = Status.UNHEALTHY if missing else Status.HEALTHY
    return Finding(check=ROLES, status=status, detail=detail, figures={"roles": len(saved)})


def _make_database(server: psycopg.Connection[Any], database: str) -> str:
    if database != server.info.dbname:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return make_conninfo(host=server.info.host, port=server.info.port, user=SUPERUSER, dbname=database)


def _as_dumped(url: str, expected: BackupRecord) -> list[Finding]:
    with open_snapshot(url) as restored:
        rows, objects = restored.count_rows(), restored.count_objects()
    return [
        _same(COUNTED, "rows", expected.database, expected.row_counts, rows),
        _same(OBJECTS, "objects", expected.database, expected.source_objects, objects),
    ]


def _same(check: str, what: str, database: str, expected: dict[str, int], seen: dict[str, int]) -> Finding:
    names = sorted(name for name in expected.keys() | seen.keys() if expected.get(name) != seen.get(name))
    shown = "; ".join(
        f"{name}: {seen.get(name, 'none')} instead of {expected.get(name, 'none')}"
        for name in names[:NAMED_DIFFERENCES]
    )
    same = f"{sum(seen.values()):,} {what} of {database}, as the record says"
    detail = f"{what} of {database} differ: {shown}" if names else same
    status = Status.UNHEALTHY if names else Status.HEALTHY
    return Finding(check=check, status=status, detail=detail, figures={"database": database, what: sum(seen.values())})
