"""What a restored depot has to stand up to: it answers, it agrees with itself, its pages and its content are whole."""

import subprocess
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from depot_api.blobstore.errors import BlobError
from depot_api.blobstore.layout import Layout, StoredBlob
from depot_api.blobstore.reader import BlobReader
from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.binaries import Binaries, BinariesNotFound
from depot_ops.postgres.client_tools import ToolFailed, client_environment, running

Connection = psycopg.Connection[Any]

ANSWERS = "catalogue_answers"
CONSISTENT = "catalogue_consistent"
INDEXES = "rows_and_indexes"
CONTENT = "content_intact"
WORKERS = 2
# What production allows its users does not hold for whoever reads everything.
UNHURRIED = "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c row_security=off"
BATCH_BLOBS = 1000
NAMED_OFFENDERS = 10
COMPLAINT_BYTES = 4000

SMOKE: dict[str, LiteralString] = {
    "assets": "SELECT count(*) FROM assets",
    "asset_versions": "SELECT count(*) FROM asset_versions",
    "projects": "SELECT count(*) FROM projects",
    "submitted_changelists": "SELECT count(*) FROM changelists WHERE status = 'submitted'",
}
# Each counts what must not be: rules that tables keep among each other beside their foreign keys.
OFFENDERS: dict[str, LiteralString] = {
    "heads that name no version and its content": """
        SELECT count(*) FROM branch_heads h WHERE h.version IS NOT NULL AND NOT EXISTS (
            SELECT FROM asset_versions v JOIN blobs b ON b.sha256 = v.sha256
             WHERE v.asset_id = h.asset_id AND v.number = h.version AND v.sha256 = h.sha256)""",
    "heads newer than their branch": """
        SELECT count(*) FROM branch_heads h JOIN branches b ON b.id = h.branch_id WHERE h.from_no > b.head_no""",
    "versions beyond their asset's last": """
        SELECT count(*) FROM asset_versions v JOIN assets a ON a.id = v.asset_id WHERE v.number > a.last_version""",
    "versions without their content": """
        SELECT count(*) FROM asset_versions v WHERE NOT EXISTS (
            SELECT FROM project_blobs p WHERE p.project_id = v.project_id AND p.sha256 = v.sha256)
           AND NOT EXISTS (
            SELECT FROM obliterated_versions o WHERE o.asset_id = v.asset_id AND o.number = v.number)""",
}
_FOREIGN_KEYS = """
SELECT k.conname::text, cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY u (number, place)
          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number),
       (SELECT array_agg(a.attname::text ORDER BY u.place) FROM unnest(k.confkey) WITH ORDINALITY u (number, place)
          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number)
  FROM pg_constraint k
  JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
 ORDER BY k.conname
"""
# What history, shelves and merges refer to; what was obliterated or collected is gone on purpose.
_BLOBS = """
SELECT encode(b.sha256::bytea, 'hex'), b.size_bytes, b.stored_bytes, b.stored_crc32 FROM blobs b
 WHERE b.removed_at IS NULL AND get_byte(b.sha256::bytea, 0) %% %s = %s
   AND (EXISTS (SELECT FROM asset_versions v WHERE v.sha256 = b.sha256)
        OR EXISTS (SELECT FROM shelf_items s WHERE s.sha256 = b.sha256)
        OR EXISTS (SELECT FROM merge_conflicts c WHERE c.resolved_sha256 = b.sha256))
"""


def catalogue_answers(database: Connection) -> Finding:
    """The runbook's smoke queries."""
    figures: Figures = {}
    try:
        for name, query in SMOKE.items():
            figures[name] = _count(database, sql.SQL(query))
    except psycopg.Error as error:
        return _finding(ANSWERS, f"a smoke query failed: {str(error).strip()}", figures)
    seen = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in figures.items())
    return Finding(check=ANSWERS, status=Status.HEALTHY, detail=seen, figures=figures)


def catalogue_consistent(database: Connection) -> Finding:
    """Does every reference of the restored catalogue lead somewhere? Asked of the rows, not of the constraints."""
    wrong: list[str] = []
    try:
        keys = database.execute(_FOREIGN_KEYS).fetchall()
        for name, *key in keys:
            dangling = _count(database, _dangling(*key))
            wrong += [f"{dangling:,} rows dangle by {name}"] if dangling else []
        for what, query in OFFENDERS.items():
            offenders = _count(database, sql.SQL(query))
            wrong += [f"{offenders:,} {what}"] if offenders else []
    except psycopg.Error as error:
        wrong.append(f"the catalogue could not be read: {str(error).strip()}")
        return _finding(CONSISTENT, "; ".join(wrong), {})
    figures: Figures = {"foreign_keys": len(keys), "rules": len(OFFENDERS)}
    seen = f"{len(keys)} foreign keys and {len(OFFENDERS)} rules hold"
    return _finding(CONSISTENT, "; ".join(wrong), figures, seen)


def _dangling(
    schema: str, table: str, parent_schema: str, parent: str, columns: list[str], parent_columns: list[str]
) -> sql.Composed:
    pairs = zip(columns, parent_columns, strict=True)
    return sql.SQL(
        "SELECT count(*) FROM {child} c WHERE {given} AND NOT EXISTS (SELECT FROM {parent} p WHERE {same})"
    ).format(
        child=sql.Identifier(schema, table),
        parent=sql.Identifier(parent_schema, parent),
        given=sql.SQL(" AND ").join(sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(name)) for name in columns),
        same=sql.SQL(" AND ").join(
            sql.SQL("p.{} = c.{}").format(sql.Identifier(there), sql.Identifier(here)) for here, there in pairs
        ),
    )


def rows_and_indexes(database: Connection, binaries: Binaries) -> Finding:
    """pg_amcheck: every table's rows are readable, every index is in order and has every row."""
    info = database.info
    try:
        program = str(binaries.path("pg_amcheck"))
    except BinariesNotFound as error:
        return Finding(check=INDEXES, status=Status.UNKNOWN, detail=str(error))
    command = [
        program,
        *(f"--host={info.host}", f"--port={info.port}", f"--username={info.user}", f"--database={info.dbname}"),
        *("--no-password", "--install-missing", "--heapallindexed", f"--jobs={WORKERS}"),
    ]
    complaints, started = b"", time.monotonic()
    try:
        with running(command, {**client_environment(), "PGOPTIONS": UNHURRIED}, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            complaints = process.stdout.read(COMPLAINT_BYTES)
            while process.stdout.read(1 << 20):  # the first say enough
                pass
    except ToolFailed as error:
        return _finding(INDEXES, complaints.decode(errors="replace").strip() or str(error), {})
    figures: Figures = {"duration_seconds": round(time.monotonic() - started, 3)}
    return _finding(INDEXES, "", figures, "pg_amcheck read every row and found it in every B-tree index")


def content_intact(database: Connection, stores: Sequence[Path], shard: int, shards: int) -> Finding:
    """Re-hash the content that the restored catalogue names: each blob has to be whole in the store or its mirror."""
    layouts = [Layout(store) for store in stores]
    blobs = blob_bytes = lost = 0
    named: list[str] = []
    started = time.monotonic()

    def damage(blob: StoredBlob) -> str | None:
        return _damage(blob, layouts)

    try:
        with (
            ThreadPoolExecutor(WORKERS) as pool,
            database.transaction(),
            database.cursor(name="drill_blobs") as cursor,
        ):
            cursor.execute(_BLOBS, [shards, shard])
            while batch := [StoredBlob(*row) for row in cursor.fetchmany(BATCH_BLOBS)]:
                blobs += len(batch)
                blob_bytes += sum(blob.size_bytes for blob in batch)
                problems = [problem for problem in pool.map(damage, batch) if problem]
                lost += len(problems)
                named += problems[: NAMED_OFFENDERS - len(named)]
    except psycopg.Error as error:
        return _finding(CONTENT, f"the catalogue could not be read: {str(error).strip()}", {})
    figures: Figures = {
        "blobs": blobs,
        "blob_bytes": blob_bytes,
        "lost_blobs": lost,
        "blob_shard": shard,
        "blob_shards": shards,
        "blob_seconds": round(time.monotonic() - started, 3),
    }
    problem = f"{lost:,} of {blobs:,} blobs are not whole anywhere: {'; '.join(named)}" if lost else ""
    return _finding(CONTENT, problem, figures, f"{blobs:,} blobs with {blob_bytes:,} bytes have their SHA-256")


def _damage(blob: StoredBlob, layouts: Iterable[Layout]) -> str | None:
    """Why no store has the blob whole; None when one has."""
    problems = []
    for layout in layouts:
        try:
            for _ in BlobReader(layout.object_path(blob.sha256), blob).content_chunks():
                pass
        except (BlobError, OSError) as error:
            problems.append(f"{error} ({layout.root})")
            continue
        return None
    return ", ".join(problems)


def _count(database: Connection, query: sql.SQL | sql.Composed) -> int:
    row = database.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _finding(check: str, problem: str, figures: Figures, seen: str = "") -> Finding:
    status = Status.UNHEALTHY if problem else Status.HEALTHY
    return Finding(check=check, status=status, detail=problem or seen, figures=figures)
