"""A drill of the newest dump loads it into a private cluster, and counts."""

import json

import psycopg

from depot_ops.drills.record import DrillKind
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.dump_record import load_record, record_path


def test_the_newest_dump_is_loaded_and_counted(depot):
    depot.execute('CREATE ROLE "Odd "" name"; GRANT SELECT ON assets TO "Odd "" name"')
    depot.execute("CREATE ROLE nobodys_table NOLOGIN")
    depot.execute("CREATE DATABASE reports")
    with psycopg.connect(depot.cluster.url("reports")) as reports:
        reports.execute("CREATE TABLE sold AS SELECT generate_series(1, 7) AS id")
    dump = depot.dump()
    other = take_logical_backup(depot.cluster.url("reports"), depot.backup_dir, depot.cluster.binaries)
    record = depot.drill(DrillKind.LOGICAL)
    assert record.result == "passed", record.reason
    assert (record.kind, record.backup) == ("logical", dump.name)
    assert {finding.check: finding.status for finding in record.findings} == dict.fromkeys(
        [
            *("checksum", "catalogue_answers", "rows_restored", "objects_restored", "catalogue_consistent"),
            "roles_restored",
        ],
        "healthy",
    )
    counted = {f.figures["database"]: f.figures["rows"] for f in record.findings if f.check == "rows_restored"}
    assert counted["reports"] == sum(other.row_counts.values()) == 7
    assert record.figures["databases"] == len(counted) == 2
    assert record.figures["rto_seconds"] > record.figures["replay_seconds"] > 0
    assert record.figures["rpo_seconds"] > 0
    assert depot.left_behind() == []


def test_a_dump_that_is_not_what_its_record_says_is_named(depot):
    dump = depot.dump()
    record = json.loads(record_path(dump).read_text())
    record["row_counts"]["public.assets"] += 1
    record["record_sha256"] = ""
    record_path(dump).write_text(json.dumps(record))
    drilled = depot.drill(DrillKind.LOGICAL)
    assert drilled.result == "failed"
    assert "public.assets: 40 instead of 41" in drilled.reason
    dump.write_bytes(dump.read_bytes()[:-100])
    truncated = depot.drill(DrillKind.LOGICAL)
    assert truncated.result == "failed"
    assert f"written with {load_record(dump).size_bytes}" in truncated.reason


def test_a_database_beside_the_depots_that_is_not_what_its_record_says_is_named(depot):
    depot.execute("CREATE DATABASE reports")
    with psycopg.connect(depot.cluster.url("reports")) as reports:
        reports.execute("CREATE TABLE sold AS SELECT generate_series(1, 7) AS id")
    depot.dump()
    taken = take_logical_backup(depot.cluster.url("reports"), depot.backup_dir, depot.cluster.binaries)
    path = record_path(depot.backup_dir / taken.file)
    record = json.loads(path.read_text())
    record["row_counts"]["public.sold"] += 1
    record["record_sha256"] = ""
    path.write_text(json.dumps(record))
    drilled = depot.drill(DrillKind.LOGICAL)
    assert drilled.result == "failed"
    assert "rows of reports differ: public.sold: 7 instead of 8" in drilled.reason
