"""Whatever is wrong is named by the drill, which has failed then: it is never skipped, and never green."""

import os
import subprocess

import psycopg
import pytest

from depot_ops.drills.canary import plant
from depot_ops.drills.record import DrillKind
from depot_ops.postgres.wal.names import parse_wal_name


def statuses(record) -> dict[str, str]:
    return {finding.check: str(finding.status) for finding in record.findings}


def test_a_missing_segment_is_named(depot):
    depot.back_up()
    for _ in range(2):
        depot.execute("INSERT INTO ops_canaries DEFAULT VALUES")
        depot.archive_all()
    victim = [name for name in depot.archive.names() if name.is_whole_segment][-2]
    depot.archive.file_path(victim).unlink()
    depot.archive.record_path(victim).unlink()
    record = depot.drill()
    assert record.result == "failed"
    assert victim.name in record.reason
    assert "rto_seconds" not in record.figures
    assert depot.left_behind() == []


def test_a_damaged_and_a_missing_blob_are_named_unless_the_mirror_has_them(depot):
    depot.back_up()
    mirror = depot.home / "mirror"
    subprocess.run(["cp", "-r", depot.store, mirror], check=True)
    damaged, missing = depot.objects()[:2]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    missing.unlink()
    record = depot.drill()
    assert record.result == "failed"
    assert {name for name, status in statuses(record).items() if status != "healthy"} == {"content_intact"}
    assert record.figures["lost_blobs"] == 2
    for path in (damaged, missing):
        assert path.name.removesuffix(".bin.gz") in record.reason
    assert "missing" in record.reason or "not in the store" in record.reason
    mirrored = depot.drill(stores=(depot.store, mirror))
    assert mirrored.result == "passed", mirrored.reason


def test_rows_and_indexes_that_do_not_agree_are_named(depot):
    """As a bug, or a hand in the database, leaves them: no constraint is there to say so."""
    rank = "CREATE OR REPLACE FUNCTION rank_of(name text) RETURNS int IMMUTABLE LANGUAGE sql RETURN {}length(name)"
    depot.execute(rank.format(""))
    depot.execute("CREATE INDEX assets_rank ON assets (rank_of(path_key))")
    depot.execute(rank.format("-"))
    depot.execute("ALTER TABLE asset_versions DISABLE TRIGGER ALL; ALTER TABLE branch_heads DISABLE TRIGGER ALL")
    depot.execute("UPDATE asset_versions SET author_id = gen_random_uuid() WHERE number = 1")
    depot.execute("UPDATE branch_heads SET version = 7 WHERE path = 'content/3'")
    depot.back_up()
    record = depot.drill()
    assert statuses(record).get("catalogue_consistent") == "unhealthy", record.reason
    assert statuses(record)["rows_and_indexes"] == "unhealthy"
    assert "assets_rank" in record.reason
    assert "40 rows dangle by asset_versions_author_id_fkey" in record.reason
    assert "1 heads that name no version" in record.reason


def test_a_disk_that_is_too_small_fails_the_drill_with_what_it_needs(depot):
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    depot.drill_dir.mkdir(mode=0o711)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=711", "none", depot.drill_dir], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        depot.back_up()
        record = depot.drill()
        depot.dump()
        logical = depot.drill(DrillKind.LOGICAL)
        left = depot.left_behind()
    finally:
        subprocess.run(["umount", depot.drill_dir], check=True)
    for drilled in (record, logical):
        assert (drilled.result, drilled.result.status) == ("failed", "unhealthy")
        assert "free bytes" in drilled.reason and "needs" in drilled.reason
    assert left == []


def test_without_a_backup_a_database_or_an_archive_that_fills_the_drill_has_failed(depot):
    depot.backup_dir.mkdir()
    assert "there is no base backup" in depot.drill().reason
    assert "there is no dump" in depot.drill(DrillKind.LOGICAL).reason
    unreachable = depot.drill(ops_url="postgresql://depot_ops:secret-password@127.0.0.1:1/depot")
    assert unreachable.result == "failed"
    assert "refused" in unreachable.reason
    assert "secret-password" not in unreachable.model_dump_json()


def test_a_segment_that_ends_right_behind_the_canary_is_the_one_that_is_waited_for(depot):
    """As archive_timeout ends one at any moment: the next has nothing in it, and never comes."""
    depot.execute("ALTER SYSTEM SET archive_timeout = 0")
    depot.execute("SELECT pg_reload_conf()")
    depot.archive_all()

    class SwitchAfterInsert(psycopg.Connection):
        def execute(self, query, *arguments, **options):
            cursor = super().execute(query, *arguments, **options)
            if "INSERT" in str(query):
                depot.archive_all()
            return cursor

    with SwitchAfterInsert.connect(depot.site().ops_url, autocommit=True) as connection:
        canary, seconds = plant(connection, depot.cluster.url(), depot.archive, 5.0)
    assert not canary.forced
    assert seconds < 5


def test_a_log_that_comes_too_late_is_forced_and_measured(depot):
    """An installation without archive_timeout: nothing is archived until a segment is full."""
    depot.execute("ALTER SYSTEM SET archive_timeout = 0")
    depot.execute("SELECT pg_reload_conf()")
    depot.back_up()
    record = depot.drill(rpo_objective_seconds=1.0)
    assert record.result == "passed", record.reason
    assert record.canary.forced
    assert record.figures["rpo_seconds"] > 1.0
    assert parse_wal_name(record.canary.segment)
