"""A standby is there when it has proved that it streams, and gone with everything that belongs to it."""

import stat
from dataclasses import replace

import psycopg
import pytest

from depot_ops.replicas.create import can_fall_back, create, rebuild, remove
from depot_ops.replicas.nodes import ReplicaBusy, ReplicaError
from depot_ops.replicas.server import ShutdownMode


def slots(replication) -> list[tuple[str, bool]]:
    return replication.query("primary", "SELECT slot_name, active FROM pg_replication_slots ORDER BY 1")


def test_it_streams_through_a_slot_that_is_bounded(pair):
    assert slots(pair) == [("depot_standby", True)]
    assert pair.query("standby", "SELECT pg_is_in_recovery()") == [(True,)]
    assert pair.query("standby", "SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]
    assert pair.query("primary", "SHOW max_slot_wal_keep_size") == [("10GB",)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        pair.query("standby", "CREATE TABLE forbidden ()")


def test_its_password_is_in_a_private_file_only(pair):
    passfile = pair.place.nodes.passfile(pair.node("standby"))
    assert stat.S_IMODE(passfile.stat().st_mode) == 0o600
    password = passfile.read_text().strip().rsplit(":", 1)[1]
    data = pair.node("standby").data
    for name in ("depot_replica.conf", "postgresql.conf", "postgresql.auto.conf"):
        assert password not in (data / name).read_text()
    ((conninfo,),) = pair.query("standby", "SELECT conninfo FROM pg_stat_wal_receiver")
    assert password not in conninfo


def test_its_role_may_replicate_and_nothing_else(pair):
    rows = pair.query(
        "primary",
        "SELECT rolsuper, rolreplication, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = %s",
        "depot_replica_standby",
    )
    assert rows == [(False, True, False, False)]


def test_removing_it_drops_slot_role_and_data(replication):
    create(replication.place, "standby")
    data = replication.node("standby").data
    remove(replication.place, "standby")
    assert slots(replication) == []
    assert not data.parent.exists()
    assert replication.query("primary", "SELECT rolname FROM pg_roles WHERE rolname LIKE 'depot\\_replica\\_%%'") == []
    assert [node.name for node in replication.place.nodes.all()] == ["primary"]


def test_rebuilding_one_whose_data_is_lost(replication):
    create(replication.place, "standby")
    server = replication.server("standby")
    server.stop()
    (server.data / "global" / "pg_control").unlink()
    rebuild(replication.place, "standby")
    assert replication.query("standby", "SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]


def test_a_copy_that_cannot_be_made_leaves_nothing(replication):
    replication.query("primary", "ALTER SYSTEM SET max_wal_senders = 0")
    replication.query("primary", "SELECT pg_reload_conf()")
    server = replication.server("primary")
    server.stop(ShutdownMode.FAST)
    server.start()
    with pytest.raises(ReplicaError, match="could not be copied"):
        create(replication.place, "standby")
    assert slots(replication) == []
    assert not replication.place.nodes.home("standby").exists()
    assert not replication.place.nodes.has("standby")


def test_refusals(replication):
    with pytest.raises(ReplicaError, match="names no node"):
        create(replication.place, "Stand by")
    with pytest.raises(ReplicaError, match="there is a node primary already"):
        create(replication.place, "primary")
    with pytest.raises(ReplicaError, match="taken"):
        create(replication.place, "standby", replication.primary.port)
    with pytest.raises(ReplicaError, match="has no node"):
        remove(replication.place, "standby")
    with replication.place.nodes.locked(), pytest.raises(ReplicaBusy):
        create(replication.place, "standby")


def test_an_archive_that_its_server_could_not_use_is_refused(replication, tmp_path):
    """A restore_command that cannot run would stop the standby when it is needed."""
    assert not can_fall_back(replication.place.account, tmp_path / "nothing")
    place = replace(replication.place, archive=tmp_path / "nothing")
    with pytest.raises(ReplicaError, match="no help"):
        create(place, "standby")
    assert not replication.place.nodes.has("standby")
