"""After a failover backups and the archive go on by themselves, and what the lost primary had alone is evidence."""

import hashlib
import os
from dataclasses import replace

import psycopg
import pytest

from depot_ops.local.ports import any_free
from depot_ops.postgres.base_backup import take_base_backup
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import collect
from depot_ops.postgres.wal.inventory import check_continuity
from depot_ops.postgres.wal.progress import check_freshness
from depot_ops.replicas import failover as steps
from depot_ops.replicas.create import create
from depot_ops.replicas.failover import Failover, Terms
from depot_ops.replicas.nodes import Node
from depot_ops.replicas.rejoin import rejoin
from depot_ops.replicas.server import ShutdownMode, wait_until
from tests.depot_ops.replicas.test_failover import kill_9, streams

# `make torture` sets it: then the backup of the new timeline is restored, too, and the old primary rejoins.
THOROUGH = "FAILOVERS" in os.environ


@pytest.fixture
def spool(replication, reachable_dir):
    """What both servers archive into."""
    directory = replication.primary.data.parent / "spool"
    directory.mkdir()
    replication.place.account.own(directory)
    server = replication.server("primary")
    server.stop()
    settings = {
        "archive_mode": "on",
        "archive_library": "basic_archive",
        "basic_archive.archive_directory": str(directory),
        "summarize_wal": "on",
    }
    with (server.data / "depot.conf").open("a") as configuration:
        configuration.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    server.start()
    create(replication.place, "standby")
    replication.follow()
    replication.query("primary", "CREATE TABLE written (number int PRIMARY KEY)")
    return directory


def rows_of(replication, data) -> set[int]:
    """Of a restored cluster, started as anybody would."""
    node = Node(name="restored", data=data, port=any_free(), socket_directories=str(data.parent))
    server = replication.place.server(node)
    server.configure({})
    server.start()
    try:
        with psycopg.connect(node.conninfo(replication.multi_host_url())) as connection:
            return {number for (number,) in connection.execute("SELECT number FROM written").fetchall()}
    finally:
        server.stop(ShutdownMode.IMMEDIATE)


def failed_over(place, evidence, archive) -> Failover:
    failover = steps.begin(place, Terms())
    for step in (steps.choose, steps.fence_suspects, steps.promote_target):
        failover = step(place, failover)
    failover = steps.await_writes(place, steps.begin_next_epoch(place, failover, None))
    failover = steps.finish(place, failover, evidence, archive)
    steps.forget(place)
    return failover


def test_backups_and_archive_go_on_and_the_tail_is_kept(replication, spool, tmp_path):
    place = replication.place
    backups, archive_root = tmp_path / "backups", tmp_path / "archive"
    url = replication.multi_host_url(database="postgres")
    first = take_base_backup(url, backups, place.binaries)
    replication.query("primary", "INSERT INTO written VALUES (1)")

    # Its archiver hangs, then its standby is cut off: whole segments, and then a commit, are nowhere else.
    replication.query("primary", "ALTER SYSTEM SET basic_archive.archive_directory = ''")
    replication.query("primary", "SELECT pg_reload_conf()")
    for number in (2, 3):
        replication.query("primary", "INSERT INTO written VALUES (%s)", number)
        replication.query("primary", "SELECT pg_switch_wal()")
    ((end,),) = replication.query("primary", "SELECT pg_current_wal_lsn()")
    caught_up = "SELECT pg_last_wal_replay_lsn() >= %s"
    wait_until(lambda: replication.query("standby", caught_up, end) == [(True,)], 10, "behind")
    passfile = place.nodes.passfile(replication.node("standby"))
    kept = passfile.read_text()
    passfile.write_text("")
    replication.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    replication.query("primary", "INSERT INTO written VALUES (99)")
    kill_9(replication, "primary")

    failover = failed_over(place, tmp_path / "evidence", archive_root)
    passfile.write_text(kept)
    (tail,) = failover.tail
    assert tail.problem is None
    assert len(tail.archived) >= 2
    for name, sha256 in tail.kept.items():
        content = (tmp_path / "evidence" / "primary" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
    assert failover.lost_bytes > 0
    assert len(tail.kept) == 1

    # By themselves: the same address, spool and archive as before.
    replication.query("standby", "INSERT INTO written VALUES (4)")
    second = take_base_backup(url, backups, place.binaries)
    replication.query("standby", "INSERT INTO written VALUES (5)")
    archive = WalArchive(archive_root, failover.system_identifier)

    def collect_all() -> None:
        assert collect(spool, archive_root).refused == []

    fresh = check_freshness(url, archive, collect=collect_all)
    assert fresh.status == "healthy", fresh.detail
    whole = check_continuity(archive, first.record.start_segment)
    assert whole.status == "healthy", whole.detail
    for base in (first, second) if THOROUGH else (first,):
        home = place.nodes.directory.parent / f"from-{base.record.label}"
        home.mkdir(mode=0o711)
        place.account.own(home)
        report = restore(home / "data", backups, archive_root, place.binaries, place.account, base=base.record.label)
        assert report.recovered_timeline == 2
        assert rows_of(replication, home / "data") == {1, 2, 3, 4, 5}

    if not THOROUGH:
        return
    # With the archive to fall back to, the old primary loses the commit that nobody else had.
    assert rejoin(replace(place, url=url), "primary").name == "primary"
    assert streams(replication, "primary")
    assert {number for (number,) in replication.query("primary", "SELECT number FROM written")} == {1, 2, 3, 4, 5}
