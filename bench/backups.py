"""Backups of a cluster of two gigabytes beside PostgreSQL's own programs, and the log's way through the hooks."""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from bench.results import Results, timed
from depot_ops.local.ports import any_free
from depot_ops.postgres.accounts import runnable_binaries, server_account
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.base_record import BaseBackupKind
from depot_ops.postgres.binaries import find_binaries
from depot_ops.postgres.client_tools import client_environment
from depot_ops.postgres.cluster import Cluster, archiving
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.dump_checks import DumpCheck, verify
from depot_ops.postgres.wal.collector import collect

ROWS_OF_A_GIGABYTE = 1_750_000
PUSHED_SEGMENTS = 24
HOOK = [sys.executable, "-m", "depot_ops", "wal"]
FILL = """
    CREATE TABLE filler AS SELECT g AS id, g % 97 AS kind, now() AS changed_at,
        repeat(md5(g::text), 4) || md5((g * 7)::text) || repeat('path/to/', 40) AS text
    FROM generate_series(1, %s) g
"""


def bench_backups(results: Results, work: Path, gigabytes: float, rounds: int) -> None:
    """`gigabytes` is two in a full run."""
    account = server_account()
    binaries = runnable_binaries(find_binaries(), account)
    settings = {**archiving(work / "cluster", binaries.major), "max_wal_size": "8GB"}
    cluster = Cluster(work / "cluster", any_free(), "only-for-the-bench", binaries, account, settings)
    cluster.initialize()
    cluster.start()
    try:
        with psycopg.connect(cluster.url(), autocommit=True) as connection:
            connection.execute(FILL.replace("%s", str(int(gigabytes * ROWS_OF_A_GIGABYTE))))
            connection.execute("ALTER TABLE filler ADD PRIMARY KEY (id)")
            connection.execute("VACUUM (FREEZE) filler")
            connection.execute("CHECKPOINT")
            bench_base_backups(results, work, cluster, connection, rounds)
        bench_dump(results, work, cluster, rounds)
        segments = sorted(cluster.wal_spool.iterdir())[-PUSHED_SEGMENTS:]
        bench_collector(results, work, segments)
        bench_hooks(results, work, cluster, segments)
    finally:
        cluster.stop()


def bench_base_backups(
    results: Results, work: Path, cluster: Cluster, connection: psycopg.Connection, rounds: int
) -> None:
    environment = client_environment(cluster.url())
    command: list[str | Path] = [cluster.binaries.path("pg_basebackup"), "--checkpoint=fast", "--pgdata"]
    ours, plain, verified, incremental = [], [], [], []
    for number in range(rounds):
        target = work / "plain"
        plain.append(timed(lambda: subprocess.run([*command, target], env=environment, check=True)))  # noqa: B023
        shutil.rmtree(target)
        backups = work / f"backups{number}"
        full = take_base_backup(cluster.url(), backups, cluster.binaries, BaseBackupKind.FULL)
        ours.append(full.record.duration_seconds)
        verified.append(full.record.verify_seconds)
        connection.execute(
            """UPDATE filler SET changed_at = now() FROM (SELECT max(id) / 100 AS one_percent FROM filler) m
               WHERE id BETWEEN %(n)s * one_percent AND (%(n)s + 1) * one_percent""",
            {"n": number},
        )
        connection.execute("CHECKPOINT")
        changed = take_base_backup(cluster.url(), backups, cluster.binaries, BaseBackupKind.INCREMENTAL)
        incremental.append(changed.record.duration_seconds)
        shutil.rmtree(backups)
    size = f"{full.record.size_bytes / 1e9:.1f} GB"
    add_ratio(results, f"base backup of {size}", ours, "pg_basebackup", plain, "≤ 1.15")
    results.add("its verification, apart", f"{statistics.median(verified):.1f} s", "")
    add_ratio(results, "incremental, 1 % of rows changed", incremental, "full", ours, "≤ 0.25")


def add_ratio(results: Results, what: str, ours: list[float], name: str, baseline: list[float], target: str) -> None:
    ratio = statistics.median(a / b for a, b in zip(ours, baseline, strict=True))
    told = f"{name} {statistics.median(baseline):.1f} s"
    results.add(what, f"{statistics.median(ours):.1f} s", target, told, ratio)


def bench_dump(results: Results, work: Path, cluster: Cluster, rounds: int) -> None:
    dump = work / "dumps" / take_logical_backup(cluster.url(), work / "dumps", cluster.binaries).file
    command = [cluster.binaries.path("pg_restore"), "--file=/dev/null", dump]
    plain = [timed(lambda: subprocess.run(command, check=True)) for _ in range(rounds)]
    ours = [timed(lambda: verify(dump, cluster.binaries, [DumpCheck.FULL_READ])) for _ in range(rounds)]
    add_ratio(results, "full-read validation of a dump", ours, "pg_restore -f /dev/null", plain, "≤ 1.2")
    every = statistics.median(timed(lambda: verify(dump, cluster.binaries)) for _ in range(rounds))
    results.add("all four proofs of a dump", f"{every:.1f} s", "")


def bench_collector(results: Results, work: Path, segments: list[Path]) -> None:
    """The recommended way: one pass over a spool, as the supervised collector makes them."""
    spool = work / "spool"
    spool.mkdir()
    for segment in segments:
        shutil.copy(segment, spool)
    os.sync()
    seconds = timed(lambda: collect(spool, work / "collected"))
    results.add("wal collect", f"{len(segments) / seconds:.1f} segments/s", "≥ 6 segments/s")


def bench_hooks(results: Results, work: Path, cluster: Cluster, segments: list[Path]) -> None:
    """Real segments, each through a process of its own, as a server runs them."""
    data, archive = work / "hooked", work / "archive"
    (data / "pg_wal").mkdir(parents=True)
    (data / "global").mkdir()
    shutil.copy(cluster.data / "global" / "pg_control", data / "global")
    for segment in segments:
        shutil.copy(segment, data / "pg_wal")

    def run(*arguments: str | Path) -> None:
        subprocess.run([*HOOK, *arguments, "--archive", archive], cwd=data, check=True)

    def rate(hook: Callable[[str], None]) -> str:
        seconds = timed(lambda: [hook(segment.name) for segment in segments])
        return f"{len(segments) / seconds:.1f} segments/s"

    results.add("wal push", rate(lambda name: run("push", f"pg_wal/{name}")), "≥ 6 segments/s")
    os.sync()
    fetched = "pg_wal/RECOVERYXLOG"
    results.add("wal get", rate(lambda name: run("get", name, fetched)), "≥ 8 segments/s")
    ahead = rate(lambda name: run("get", name, fetched, "--prefetch", work / "ahead"))
    results.add("wal get --prefetch", ahead, "≥ 8 segments/s")
