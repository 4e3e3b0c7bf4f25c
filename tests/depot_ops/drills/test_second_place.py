"""A drill of what would be left after the loss of this machine: of the copy, and of the streamed log."""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest

from depot_ops.assets.drill import copy_restore_drill
from depot_ops.checks.drill import copy_drill_checks
from depot_ops.copies.copying import copy_backups
from depot_ops.drills.objectives import Objective, check_objective
from depot_ops.drills.record import DrillKind, find_drills, load_drill
from depot_ops.jobs import copy_drills
from depot_ops.places import open_place
from depot_ops.postgres.drill_facts import read_drill_facts
from depot_ops.postgres.wal.stream import SLOT
from depot_ops.resources import RESOURCES
from depot_ops.settings import ObjectiveSettings

DEADLINE_SECONDS = 60
WAITED_SECONDS = 1.0


@pytest.fixture
def place(depot):
    (depot.home / "second").mkdir()
    return open_place((depot.home / "second").as_uri())


def flip_a_byte(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def in_dagster(depot, monkeypatch) -> dict[str, bool]:
    """What the job's checks say; the place has to be there when definitions are loaded."""
    for name, value in {
        **depot.environment,
        "RPO_OBJECTIVE_SECONDS": "0",
        "BACKUP_COPY_URL": (depot.home / "second").as_uri(),
    }.items():
        monkeypatch.setenv(name, value)
    copied = dg.Definitions(
        [copy_restore_drill], jobs=[copy_drills], resources=RESOURCES, asset_checks=copy_drill_checks
    )
    result = copied.resolve_job_def(copy_drills.name).execute_in_process(raise_on_error=False)
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def test_the_copy_is_restored_whatever_became_of_what_lies_here(depot, place, monkeypatch):
    base, dump = depot.back_up(), depot.dump()
    nothing = depot.drill(copy=place)
    assert nothing.result == "failed"
    assert str(place) in nothing.reason
    assert copy_backups(depot.backup_dir, depot.archive_root, place).refused == ()
    flip_a_byte(base.archive)
    flip_a_byte(dump)
    depot.execute("INSERT INTO ops_canaries DEFAULT VALUES")
    depot.archive_all()
    time.sleep(WAITED_SECONDS)  # of which a disaster would take the commits: it is not copied yet
    assert in_dagster(depot, monkeypatch) == {"copy_drill_age": True}
    record = load_drill(find_drills(depot.backup_dir)[-1])
    assert record.result == "passed", record.reason
    assert (record.backup, record.from_place) == (base.record.label, str(place))
    assert record.figures["rpo_seconds"] > WAITED_SECONDS
    logical = depot.drill(DrillKind.LOGICAL, copy=place)
    assert logical.result == "passed", logical.reason
    assert depot.left_behind() == []
    assert depot.drill().result == "failed"
    settings = ObjectiveSettings(backup_dir=depot.backup_dir)
    judged = {objective: str(check_objective(objective, settings).status) for objective in Objective}
    assert {name for name, status in judged.items() if status == "healthy"} == {Objective.COPY_AGE}
    assert [fact.passed for fact in read_drill_facts(depot.backup_dir)] == [False]  # it says nothing of what lies here


def test_with_a_stream_the_recovery_point_is_that_of_the_stream(depot):
    """Nothing is archived by itself, and the commit is restored all the same."""
    depot.execute("ALTER SYSTEM SET archive_timeout = 0")
    depot.execute("SELECT pg_reload_conf()")
    depot.back_up()
    stream = depot.home / "stream"
    environment = {**os.environ, **depot.environment, "WAL_STREAM_DIR": str(stream)}
    receiver = subprocess.Popen([sys.executable, "-m", "depot_ops", "wal", "receive"], env=environment)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not depot.execute(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND active"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        record = depot.drill(stream=stream, rpo_objective_seconds=DEADLINE_SECONDS)
    finally:
        receiver.terminate()
        receiver.wait()
    assert record.result == "passed", record.reason
    assert not record.canary.forced
    assert record.restored.streamed_until
    assert record.figures["rpo_seconds"] < DEADLINE_SECONDS / 10
