"""A drill touches nothing of production, and one that is killed leaves nothing that the next one trips over."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from depot_ops.drills.record import DrillKind, find_drills, load_drill
from depot_ops.drills.site import DrillRunning

DRILL = """
import sys
from depot_ops.drills.record import DrillKind
from depot_ops.drills.run import run_drill
from depot_ops.drills.site import configured_site
from depot_ops.settings import DrillSettings, load
run_drill(DrillKind(sys.argv[1]), configured_site(load(DrillSettings), lambda step: print(step, flush=True)))
"""

STATE = """
SELECT (SELECT array_agg(s ORDER BY name) FROM (SELECT name, setting, reset_val, sourcefile FROM pg_settings) s)::text,
       (SELECT count(*) FROM pg_replication_slots), pg_is_in_recovery(), pg_postmaster_start_time(),
       left(pg_walfile_name(pg_current_wal_lsn()), 8)
"""


def test_production_is_as_it_was(depot):
    """Also where the backup carries a slot, production's addresses and files that are outside its directory."""
    depot.execute("SELECT pg_create_physical_replication_slot('standby', true)")
    depot.execute("ALTER SYSTEM SET primary_slot_name = 'standby'")
    depot.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1'")
    depot.execute("SELECT pg_reload_conf()")
    depot.back_up()
    pid_file = depot.home / "c" / "production.pid"
    before = (depot.execute(STATE), pid_file.read_text())
    connections: set[tuple[str, int]] = set()
    record = depot.drill(say=lambda _: connections.update(listening(depot.drill_dir)))
    assert record.result == "passed", record.reason
    assert connections == set()
    assert before == (depot.execute(STATE), pid_file.read_text())
    assert {name.timeline for name in depot.archive.names()} == {1}
    assert depot.left_behind() == []


def listening(directory: Path) -> set[tuple[str, int]]:
    """The TCP ports of every server that runs on a directory below this one."""
    servers = [p for p in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(p.info["cmdline"] or [])]
    return {tuple(c.laddr) for server in servers for c in server.net_connections("tcp") if c.status == "LISTEN"}


@pytest.mark.parametrize(
    ("kind", "step", "seconds"), [("base", "restoring", 0.3), ("base", "verifying", 0.05), ("logical", "loading", 0.05)]
)
def test_a_killed_drill_is_recorded_as_failed_and_the_next_one_works(depot, kind, step, seconds):
    if kind == "base":
        depot.back_up()
    else:
        depot.dump()
    environment = {**os.environ, **depot.environment, "RPO_OBJECTIVE_SECONDS": "0"}
    command = [sys.executable, "-c", DRILL, kind]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while not process.stdout.readline().startswith(step):
            assert process.poll() is None
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    assert len(depot.left_behind()) == 1
    deadline = time.monotonic() + 60
    while True:
        try:
            record = depot.drill(DrillKind(kind))
            break
        except DrillRunning:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert record.result == "passed", record.reason
    killed, last = map(load_drill, find_drills(depot.backup_dir))
    assert (killed.result, last) == ("failed", record)
    assert "killed" in killed.reason
    assert depot.left_behind() == []


def test_a_drill_that_is_told_to_end_takes_its_copy_with_it(depot):
    depot.back_up()
    environment = {**os.environ, **depot.environment, "RPO_OBJECTIVE_SECONDS": "0"}
    with subprocess.Popen([sys.executable, "-m", "depot_ops", "drill", "run"], env=environment) as process:
        while not list(depot.drill_dir.glob("drill-*/.partial-data")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    assert depot.left_behind() == []
    ended = load_drill(find_drills(depot.backup_dir)[-1])
    assert ended.result == "failed"
    assert "broken off" in ended.reason
