"""Drilling the newest base backup: the whole log behind it is replayed, up to a row that was written after it.

Nothing of production is touched but that row: the copy has its own directory and socket, and no way to anywhere else.
"""

import time
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from depot_ops.copies.checks import log_behind_seconds
from depot_ops.copies.copying import CopyRunning, copy_backups
from depot_ops.drills.canary import look_for, plant
from depot_ops.drills.proofs import (
    UNHURRIED,
    catalogue_answers,
    catalogue_consistent,
    content_intact,
    rows_and_indexes,
)
from depot_ops.drills.record import DrillRecord, DrillRecordUnusable, find_drills, load_drill
from depot_ops.drills.site import Site, Workspace
from depot_ops.places import Place
from depot_ops.postgres.base_record import BaseBackup, find_base_backups, load_base_backup
from depot_ops.postgres.recovery import CUT_TIES, restore, serving
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused
from depot_ops.postgres.recovery_source import open_copy
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.names import parse_lsn

CONNECT_TIMEOUT_SECONDS = 10
COPY_WAIT_SECONDS = 3600.0  # the hourly pass may be at work with a large backup


def drill_base(site: Site, record: DrillRecord, workspace: Workspace) -> None:
    """Restore the newest base backup into `workspace`, prove it, and fill in `record`. Raises what stops it."""
    with psycopg.connect(site.ops_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_SECONDS) as depot:
        database = depot.info.dbname
        base = _newest_base(site, depot, workspace)
        record.system_identifier, record.backup = base.record.system_identifier, base.record.label
        site.say(f"writing a canary, and waiting until it is safe: {site.rpo_objective_seconds:g} s at most")
        archive = WalArchive(site.archive_root, base.record.system_identifier)
        record.canary, rpo_seconds = plant(
            depot, site.replication_url, archive, site.rpo_objective_seconds, streamed=site.stream is not None
        )
    if site.copy is not None:
        rpo_seconds += _copied(site, site.copy)
    record.figures |= {"rpo_seconds": round(rpo_seconds, 3)}
    if parse_lsn(record.canary.lsn) <= parse_lsn(base.record.stop_lsn):
        raise RestoreError(
            f"the canary at {record.canary.lsn} lies before the end of {base.record.label}: {base.record.stop_lsn}."
            " This is not the server that was backed up, or it was restored since: take a full backup"
        )
    _restore(site, record, base, workspace)
    _open(site, record, base, database, workspace)


def _newest_base(site: Site, depot: psycopg.Connection[Any], workspace: Workspace) -> BaseBackup:
    row = depot.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    assert row is not None
    if site.copy is not None:
        held = open_copy(site.copy, workspace.home / "copy", row[0])
        return load_base_backup(find_base_backups(held.backup_dir, row[0])[-1])
    paths = find_base_backups(site.backup_dir, row[0])
    if not paths:
        raise RestoreRefused(
            f"there is no base backup of the cluster {row[0]} in {site.backup_dir}: take one with"
            " `depot-ops backup full`"
        )
    return load_base_backup(paths[-1])


def _copied(site: Site, place: Place) -> float:
    """Bring what is new to the second place, and say how long the log there was behind before."""
    behind_seconds = log_behind_seconds(site.archive_root, place)
    site.say(f"copying what is new to {place}")
    deadline = time.monotonic() + COPY_WAIT_SECONDS
    while True:
        try:
            copy_backups(site.backup_dir, site.archive_root, place, say=site.say)
        except CopyRunning:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return behind_seconds


def _restore(site: Site, record: DrillRecord, base: BaseBackup, workspace: Workspace) -> None:
    site.say(f"restoring {base.record.label} and replaying the log behind it")
    record.restored = restored = restore(
        workspace.home / "data",
        site.backup_dir,
        site.archive_root,
        site.binaries,
        site.account,
        system_identifier=base.record.system_identifier,
        copy=site.copy,
        stream=site.stream,
        verify=base.record.data_checksums,
    )
    if restored.backups[-1] != base.record.label:
        raise RestoreError(
            f"the restore began with {restored.backups[-1]}, and the newest base backup is {base.record.label}. If one"
            " was taken meanwhile, run the drill again"
        )
    record.replayed_to_lsn = restored.ended_lsn
    record.figures |= {
        "fetch_seconds": restored.fetch_seconds,
        "replay_seconds": restored.replay_seconds,
        "wal_segments": restored.segments,
        "restored_bytes": base.record.size_bytes,
    }


def _open(site: Site, record: DrillRecord, base: BaseBackup, database: str, workspace: Workspace) -> None:
    assert record.canary is not None
    assert record.restored is not None
    site.say("opening the restored cluster")
    started = time.monotonic()
    data, superuser = workspace.home / "data", base.record.superuser
    with serving(data, CUT_TIES, superuser, workspace.home, workspace.lock, site.binaries, site.account) as (server, _):
        host, port = server.info.host, server.info.port
        address = make_conninfo(host=host, port=port, user=superuser, dbname=database, options=UNHURRIED)
        with psycopg.connect(address, autocommit=True) as depot:
            record.findings += [look_for(record.canary, depot), catalogue_answers(depot)]
            opened = time.monotonic()
            restored = record.restored
            record.figures |= {
                "open_seconds": round(opened - started, 3),
                "rto_seconds": round(restored.fetch_seconds + restored.replay_seconds + opened - started, 3),
            }
            _verify(site, record, depot)
    verify_seconds = restored.verify_seconds + time.monotonic() - opened
    record.figures |= {"verify_seconds": round(verify_seconds, 3)}


def _verify(site: Site, record: DrillRecord, depot: psycopg.Connection[Any]) -> None:
    site.say("verifying references, rows and indexes")
    record.findings += [catalogue_consistent(depot), rows_and_indexes(depot, site.binaries)]
    shard = _next_shard(site)
    site.say(f"re-hashing the content that the restored catalogue names, shard {shard + 1} of {site.blob_shards}")
    content = content_intact(depot, site.stores, shard, site.blob_shards)
    record.findings.append(content)
    record.figures |= content.figures


def _next_shard(site: Site) -> int:
    """The one after that which was proved last, so that drills go through all, and stay with one that has a loss."""
    for path in reversed(find_drills(site.backup_dir)):
        try:
            figures = load_drill(path).figures
        except DrillRecordUnusable:
            continue  # it proved nothing; the shard before it comes again
        if figures.get("blob_shards") == site.blob_shards and figures["lost_blobs"] == 0:
            return (int(figures["blob_shard"]) + 1) % site.blob_shards
    return 0
