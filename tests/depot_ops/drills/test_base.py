"""A drill of the newest base backup proves it, or names what is wrong."""

import json

from depot_ops.drills.record import record_path


def test_the_newest_backup_is_restored_up_to_the_canary_and_proved(depot):
    depot.back_up()
    newest = depot.back_up()
    record = depot.drill(rpo_objective_seconds=30.0)
    assert record.result == "passed", record.reason
    assert (record.backup, record.kind) == (newest.record.label, "base")
    assert {finding.check: finding.status for finding in record.findings} == {
        "canary_restored": "healthy",
        "catalogue_answers": "healthy",
        "catalogue_consistent": "healthy",
        "rows_and_indexes": "healthy",
        "content_intact": "healthy",
    }
    assert depot.execute("SELECT id, written_at FROM ops_canaries") == [(record.canary.id, record.canary.written_at)]
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
