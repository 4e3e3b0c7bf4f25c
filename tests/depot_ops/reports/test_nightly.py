"""The nightly report says healthy, unhealthy or unknown, and each for a reason that holds."""

import json
from datetime import timedelta
from pathlib import Path

import jsonschema_rs
import pytest
from typer.testing import CliRunner, Result

from depot_ops.cli import app
from depot_ops.copies.copying import copy_backups
from depot_ops.evidence import Status
from depot_ops.places import open_place
from depot_ops.postgres.dump_record import find_backups, load_record, record_path
from depot_ops.postgres.standby import check_freshness_by_standby, check_standby
from depot_ops.postgres.wal.names import parse_wal_name, segment_name
from depot_ops.reports.nightly import OpsReport, ReportScope, make_report

SCHEMA = Path(__file__).parents[3] / "docs" / "report-schema.json"


@pytest.fixture
def arguments(pair, backup_dir, health_url) -> dict[str, str]:
    return {
        "--backup-dir": str(backup_dir),
        "--archive-dir": str(pair.archive_root),
        "--replica-url": pair.standby.url(),
        "--health-url": health_url,
    }


def run(arguments: dict[str, str]) -> tuple[Result, dict[str, str]]:
    """The result of the command, and each check's status as a log shipper reads it."""
    result = CliRunner().invoke(app, ["report", *(word for pair in arguments.items() for word in pair)])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return result, {line["check"]: line["status"] for line in lines}


def statuses_of(scope: ReportScope) -> dict[str, str]:
    return {finding.check: str(finding.status) for finding in make_report(scope).findings}


def test_a_good_night_is_healthy_and_its_report_is_as_published(pair, arguments, tmp_path):
    pair.stream()
    output = tmp_path / "report.json"
    result, statuses = run(arguments | {"--output": str(output)})
    assert (result.exit_code, set(statuses.values())) == (0, {"healthy"}), result.stdout
    assert list(statuses) == [
        *("restorable_listing", "full_read", "checksum", "row_counts", "backup_age"),
        *("wal_continuity", "wal_freshness", "service_health", "replica_health"),
    ]
    report = json.loads(output.read_text())
    jsonschema_rs.validate(json.loads(SCHEMA.read_text()), report)
    assert report["status"] == "healthy"
    assert [finding["check"] for finding in report["findings"]] == list(statuses)
    assert list(tmp_path.glob(".report*")) == []
    assert pair.primary.password not in result.stdout + output.read_text()


def test_the_options_are_those_of_the_runbook():
    shown = CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"}).stdout
    for option in ("--backup-dir", "--archive-dir", "--replica-url", "--health-url", "--output"):
        assert option in shown


def test_a_stream_is_looked_at_where_it_is_set_up(pair, tmp_path):
    scope = ReportScope(archive_dir=pair.archive_root, stream_dir=tmp_path / "stream", arrival_seconds=0)
    assert statuses_of(scope)["wal_stream"] == "unknown"  # no primary to ask
    primary_url = pair.primary.url()
    assert statuses_of(scope.model_copy(update={"primary_url": primary_url}))["wal_stream"] == "unhealthy"  # no slot
    pair.finish_segment()
    pair.collect()  # for the other tests
    pair.stream()


def test_a_second_place_is_looked_at_where_it_is_set_up(pair, backup_dir, tmp_path, monkeypatch):
    place = tmp_path / "second"
    place.mkdir()
    monkeypatch.setenv("BACKUP_COPY_URL", place.as_uri())
    arguments = {"--backup-dir": str(backup_dir)}
    _, statuses = run(arguments)
    assert statuses["copy_age"] == "unhealthy"  # nothing was ever copied
    copy_backups(backup_dir, pair.archive_root, open_place(place.as_uri()))
    _, statuses = run(arguments)
    assert (statuses["copy_complete"], statuses["copy_age"]) == ("healthy", "healthy")
    monkeypatch.setenv("BACKUP_COPY_URL", "gopher://nowhere")
    assert run(arguments)[1]["copy_complete"] == "unknown"


def test_the_published_schema_is_the_reports():
    assert json.loads(SCHEMA.read_text()) == OpsReport.model_json_schema(mode="serialization")


def test_what_is_not_given_is_unknown_and_said(arguments):
    result, statuses = run({})
    assert result.exit_code == 3
    assert set(statuses.values()) == {"unknown"}
    assert set(statuses) == {"backup_age", "wal_freshness", "service_health", "replica_health"}
    result, statuses = run({name: value for name, value in arguments.items() if name != "--replica-url"})
    assert result.exit_code == 3
    assert {name for name, status in statuses.items() if status == "unknown"} == {"replica_health", "wal_freshness"}


@pytest.mark.parametrize(("hosts", "asked"), [("127.0.0.1:1", False), ("127.0.0.1:1,127.0.0.1:2", True)])
def test_a_standby_that_nobody_has_is_not_asked(hosts, asked):
    report = make_report(ReportScope(primary_url=f"postgresql://nobody@{hosts}/none"))
    assert ("replica_health" in {finding.check for finding in report.findings}) is asked


def test_a_damaged_dump_is_unhealthy(arguments, backup_dir):
    dump = find_backups(backup_dir)[-1]
    dump.write_bytes(dump.read_bytes()[:-1])
    result, statuses = run(arguments)
    assert result.exit_code == 1
    assert (statuses["checksum"], statuses["service_health"]) == ("unhealthy", "healthy")


def test_a_dump_of_two_nights_ago_is_unhealthy_though_it_is_sound(arguments, backup_dir):
    dump = find_backups(backup_dir)[-1]
    record = load_record(dump)
    old = record.model_copy(update={"started_at": record.started_at - timedelta(hours=27)})
    record_path(dump).write_text(old.sealed().model_dump_json())
    assert run(arguments)[1]["backup_age"] == "unhealthy"
    assert run(arguments | {"--max-backup-age-hours": "28"})[0].exit_code == 0


def test_no_backup_and_a_service_that_is_down_are_unhealthy(arguments, tmp_path):
    (tmp_path / "empty").mkdir()
    given = {"--backup-dir": str(tmp_path / "empty"), "--health-url": "http://127.0.0.1:1"}
    result, statuses = run(arguments | given)
    assert result.exit_code == 1
    assert (statuses["backup_age"], statuses["full_read"], statuses["service_health"]) == ("unhealthy",) * 3


def test_what_cannot_be_read_or_asked_is_unknown(arguments, tmp_path):
    gone = str(tmp_path / "gone")
    replica = "postgresql://postgres:secret-word@127.0.0.1:1/postgres"
    result, statuses = run(arguments | {"--backup-dir": gone, "--archive-dir": gone, "--replica-url": replica})
    assert result.exit_code == 3
    assert {name for name, status in statuses.items() if status != "unknown"} == {"service_health"}
    assert "secret-word" not in result.stdout


def test_a_report_that_cannot_be_written_exits_1(arguments, tmp_path):
    result, _ = run(arguments | {"--output": str(tmp_path / "gone" / "report.json")})
    assert result.exit_code == 1


def test_log_that_is_finished_and_does_not_arrive_is_stale_until_it_does(pair, archive):
    name = pair.finish_segment()
    pair.stream()
    stale = check_freshness_by_standby(pair.standby.url(), archive, arrival_seconds=0.2)
    assert (stale.status, stale.figures["file"]) == (Status.UNHEALTHY, name)
    pair.collect()
    assert check_freshness_by_standby(pair.standby.url(), archive).status is Status.HEALTHY


def test_the_primary_is_probed_where_it_is_given(pair, arguments):
    pair.collect()
    result, statuses = run({**arguments, "--primary-url": "postgresql://postgres:secret-word@127.0.0.1:1/postgres"})
    assert result.exit_code == 3
    assert (statuses["wal_freshness"], statuses["replica_health"]) == ("unknown", "unknown")


def test_a_standby_is_judged_by_bytes(pair):
    pair.stream()
    near = check_standby(pair.standby.url(), pair.primary.url())
    assert near.status is Status.HEALTHY
    assert near.figures["behind_bytes"] == 0
    pair.execute("SELECT pg_wal_replay_pause()", pair.standby.url())
    try:
        pair.execute("CREATE TABLE IF NOT EXISTS filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        far = check_standby(pair.standby.url(), pair.primary.url(), max_behind_bytes=100_000)
    finally:
        pair.execute("SELECT pg_wal_replay_resume()", pair.standby.url())
    assert far.status is Status.UNHEALTHY
    assert int(far.figures["behind_bytes"]) > 100_000


def test_a_broken_stream_is_unknown_however_little_it_seems_behind(pair):
    conninfo = pair.execute("SHOW primary_conninfo", pair.standby.url())[0][0].replace("'", "''")
    try:
        pair.execute("ALTER SYSTEM SET primary_conninfo = ''", pair.standby.url())
        pair.execute("SELECT pg_reload_conf()", pair.standby.url())
        receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
        from_standby = pair.standby.url()
        while pair.execute(receivers, from_standby) != [(0,)]:
            pass
        broken = check_standby(pair.standby.url(), pair.primary.url())
    finally:
        pair.execute(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'", pair.standby.url())
        pair.execute("SELECT pg_reload_conf()", pair.standby.url())
    assert broken.status is Status.UNKNOWN
    assert "behind_bytes" not in broken.figures
    pair.stream()


def test_servers_in_each_others_place(pair, cluster):
    assert check_standby(pair.primary.url()).status is Status.UNHEALTHY
    assert check_standby(pair.standby.url(), pair.standby.url()).status is Status.UNKNOWN
    stranger = check_standby(pair.standby.url(), cluster.url())
    assert stranger.status is Status.UNHEALTHY
    assert "rebuild" in stranger.detail


def test_log_that_the_oldest_base_backup_needs_and_the_archive_lost_is_missing(estate):
    estate.base(0)
    estate.log(14)
    scope = ReportScope(backup_dir=estate.backup_dir, archive_dir=estate.archive.root)
    assert statuses_of(scope)["wal_continuity"] == "healthy"
    for number in range(12):
        name = parse_wal_name(segment_name(1, number))
        estate.archive.file_path(name).unlink()
        estate.archive.record_path(name).unlink()
    assert statuses_of(scope)["wal_continuity"] == "unhealthy"
