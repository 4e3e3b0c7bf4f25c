"""A drill of the newest base backup proves it, or names what is wrong."""

import json

import psycopg

from depot_ops.drills.proofs import content_intact
from depot_ops.drills.record import DrillKind, begin, publish, record_path
from depot_ops.postgres.base_backup import INCREMENTAL_SINCE
from depot_ops.postgres.base_record import BaseBackupKind
from depot_ops.schedules import full_backup_schedule, restore_drills_schedule


def test_the_newest_backup_is_restored_up_to_the_canary_and_proved(depot):
    full = depot.back_up()
    has_chains = depot.cluster.binaries.major >= INCREMENTAL_SINCE
    newest = depot.back_up(BaseBackupKind.INCREMENTAL if has_chains else BaseBackupKind.FULL)
    depot.execute("ALTER ROLE postgres IN DATABASE depot SET statement_timeout = '1ms'")  # it is not the drill's
    record = depot.drill(rpo_objective_seconds=30.0)
    assert record.result == "passed", record.reason
    assert (record.backup, record.kind) == (newest.record.label, "base")
    chain = [full, newest] if has_chains else [newest]
    assert record.restored.backups == tuple(backup.record.label for backup in chain)
    assert {finding.check: finding.status for finding in record.findings} == {
        "canary_restored": "healthy",
        "catalogue_answers": "healthy",
        "catalogue_consistent": "healthy",
        "rows_and_indexes": "healthy",
        "content_intact": "healthy",
    }
    with psycopg.connect(depot.site().ops_url) as connection:
        written = connection.execute("SELECT id, written_at FROM ops_canaries").fetchall()
    assert written == [(record.canary.id, record.canary.written_at)]
    assert not record.canary.forced
    figures = record.figures
    assert figures["blobs"] == len(depot.objects()) == 40
    phases = [figures[f"{name}_seconds"] for name in ("fetch", "replay", "open")]
    assert all(seconds > 0 for seconds in [*phases, figures["verify_seconds"], figures["rpo_seconds"]])
    assert abs(figures["rto_seconds"] - sum(phases)) < 0.01
    assert depot.left_behind() == []
    written = json.loads(record_path(depot.backup_dir, record.label).read_text())
    assert written == record.model_dump(mode="json")
    assert written["schema_version"] == 1


def test_the_weekly_drill_finds_a_chain_and_not_the_full_backup_that_was_just_drilled():
    full, drill = (
        int(schedule.cron_schedule.split()[-1]) for schedule in (full_backup_schedule, restore_drills_schedule)
    )
    assert (drill + 1) % 7 == full


def test_shards_go_round_through_all_content_and_stay_where_something_is_lost(depot):
    with psycopg.connect(depot.cluster.url("depot"), autocommit=True) as connection:
        found = [content_intact(connection, [depot.store], shard, 3).figures for shard in range(3)]
    assert sum(figures["blobs"] for figures in found) == 40
    assert all(figures["blobs"] > 0 for figures in found)
    depot.back_up()
    for shard, lost in ((1, 0), (2, 1)):
        proved = begin(DrillKind.BASE, "18.6")
        proved.figures = {"blob_shard": shard, "blob_shards": 3, "lost_blobs": lost}
        publish(proved, depot.backup_dir)
    record = depot.drill(blob_shards=3)
    assert record.figures["blob_shard"] == 2
    assert record.figures["blobs"] == found[2]["blobs"]
