"""Freshness by progress, and what waits: on a real server, with each way in which archiving fails silently."""

import os
import time

import pytest

from depot_ops.evidence import Status
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.progress import check_backlog, check_freshness, check_spool


@pytest.fixture
def archive(archive_root, system_identifier) -> WalArchive:
    return WalArchive(archive_root, system_identifier)


@pytest.fixture
def archiving_by(primary, segments):
    """Archive by another command for the length of a test; afterwards by basic_archive again.

    The segments of other tests are made before: an archiver that fails does not try again for a minute.
    """

    def configure(**settings: str) -> None:
        for name, value in settings.items():
            primary.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        primary.execute("SELECT pg_reload_conf()")

    yield configure
    for name in ("archive_command", "archive_library"):
        primary.execute(f"ALTER SYSTEM RESET {name}")
    primary.execute("SELECT pg_reload_conf()")


def test_an_idle_server_is_fresh(primary, archive):
    primary.finish_segment()  # the newest before may be in another test's archive
    url = primary.cluster.url()
    for _ in range(3):
        finding = check_freshness(url, archive, collect=lambda: collect(primary.spool, archive.root))
        assert finding.status is Status.HEALTHY, finding.detail


def test_what_does_not_arrive_is_stale(primary, archive):
    primary.execute("SELECT pg_logical_emit_message(false, 'test', 'x')")
    finding = check_freshness(primary.cluster.url(), archive, arrival_seconds=0.3)
    assert finding.status is Status.UNHEALTHY
    assert finding.figures["file"]


def test_a_server_out_of_reach_is_unknown(archive):
    url = "postgresql://postgres:secret-password@127.0.0.1:1/postgres"
    for finding in (check_freshness(url, archive), check_backlog(url)):
        assert finding.status is Status.UNKNOWN
        assert "secret-password" not in finding.detail


@pytest.mark.parametrize("command", ["exit 255", "kill -9 $$", "exit 1", ""], ids=["255", "signal", "1", "empty"])
def test_what_waits_is_counted_however_archiving_fails(primary, archiving_by, command):
    archiving_by(archive_library="", archive_command=command)
    primary.execute("SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
    deadline = time.monotonic() + 30
    while (finding := check_backlog(primary.cluster.url(), max_files=0)).status is not Status.UNHEALTHY:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert finding.figures["waiting_files"] or "empty" in finding.detail


def test_a_spool_that_nobody_collects(spool, segments):
    assert check_spool(spool).status is Status.HEALTHY
    os.utime(spool / segments[0][0].name, (1, 1))
    assert check_spool(spool).status is Status.UNHEALTHY
    assert check_spool(spool, max_seconds=1e12, max_files=2).status is Status.UNHEALTHY
    assert check_spool(spool / "missing").status is Status.UNKNOWN
