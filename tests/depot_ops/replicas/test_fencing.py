"""How far a lost primary got: measured, or not known. What could not be read is never "nothing"."""

import pytest

from depot_ops.postgres.wal.names import DEFAULT_SEGMENT_SIZE_BYTES, parse_lsn
from depot_ops.replicas import failover as steps
from depot_ops.replicas.failover import Terms, promote
from depot_ops.replicas.fencing import Unmeasured, fence
from depot_ops.replicas.promotion import Refused
from depot_ops.replicas.server import ShutdownMode, wait_until
from depot_ops.replicas.tail import keep_tail
from tests.depot_ops.replicas.test_failover import kill_9


def cut_off(replicated) -> int:
    """The standby streams no more. Returns up to where it has the log."""
    replicated.place.nodes.passfile(replicated.node("standby")).write_text("")
    replicated.query("primary", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_replication")
    no_receiver = "SELECT count(*) FROM pg_stat_wal_receiver"
    wait_until(lambda: replicated.query("standby", no_receiver) == [(0,)], 10, "it streams on")
    ((received,),) = replicated.query("standby", "SELECT pg_last_wal_receive_lsn()::text")
    return parse_lsn(received)


def test_a_log_that_was_recycled_or_cannot_be_read_is_no_proof_of_nothing_lost(replicated, tmp_path):
    for setting in ("wal_keep_size = 0", "max_slot_wal_keep_size = '1MB'"):
        replicated.query("primary", f"ALTER SYSTEM SET {setting}")
    replicated.query("primary", "SELECT pg_reload_conf()")
    received = cut_off(replicated)
    for number in range(8):
        replicated.query("primary", "INSERT INTO written VALUES (%s)", number)
        replicated.query("primary", "SELECT pg_switch_wal()")
    replicated.query("primary", "CHECKPOINT")
    assert replicated.query("primary", "SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    kill_9(replicated, "primary")
    with pytest.raises(Refused, match="how far primary got could not be measured"):
        promote(replicated.place, "standby")
    assert replicated.query("standby", "SELECT pg_is_in_recovery()") == [(True,)]

    fenced = fence(replicated.server("primary"))
    newest = max(fenced.segments().values(), key=lambda name: name.name)
    tail = keep_tail(fenced.server, received, fenced.system_identifier, tmp_path / "tail", None)
    assert newest.name in tail.kept
    assert "could not be read" in tail.problem

    # What can be read from here on is whole, as long as it can be read.
    checkpoint = fenced.control.checkpoint_lsn
    assert fenced.end_of_log(checkpoint) > checkpoint
    segment = fenced.server.data / "pg_wal" / fenced.segments()[checkpoint // fenced.control.segment_size_bytes].name
    segment.chmod(0)
    with pytest.raises(Unmeasured, match="Permission denied"):
        fenced.end_of_log(checkpoint)
    segment.chmod(0o600)
    segment.write_bytes(bytes(segment.stat().st_size))
    with pytest.raises(Unmeasured, match="could not find a valid record"):
        fenced.end_of_log(checkpoint)

    done = promote(replicated.place, "standby", accept_data_loss=True, reason="nobody knows")
    assert done.lost_bytes is None


def test_a_new_primary_that_is_lost_before_its_first_checkpoint_is_read_on_its_own_timeline(replicated):
    """Its control file tells of the old timeline still."""
    replicated.server("primary").stop(ShutdownMode.IMMEDIATE)
    failover = steps.begin(replicated.place, Terms())
    for step in (steps.choose, steps.fence_suspects, steps.promote_target):
        failover = step(replicated.place, failover)
    replicated.query("standby", "INSERT INTO written VALUES (1)")
    # Its end lies some pages on.
    replicated.query("standby", "SELECT pg_logical_emit_message(true, 'x', repeat('x', 40000))")
    ((written,),) = replicated.query("standby", "SELECT pg_current_wal_flush_lsn()::text")
    kill_9(replicated, "standby")
    fenced = fence(replicated.server("standby"))
    assert fenced.control.timeline == 1
    assert fenced.end_of_log(parse_lsn(failover.fork_lsn)) == parse_lsn(written)


@pytest.mark.parametrize("record_bytes", [10, 40_000])
def test_a_log_whose_last_record_goes_on_into_the_next_segment_is_measured(replicated, record_bytes):
    """No record begins in the segment in which it ends."""
    emit = "SELECT pg_logical_emit_message(false, 'x', repeat('x', %s), true)"

    def flushed() -> int:
        return parse_lsn(replicated.query("primary", "SELECT pg_current_wal_flush_lsn()::text")[0][0])

    boundary = (flushed() // DEFAULT_SEGMENT_SIZE_BYTES + 1) * DEFAULT_SEGMENT_SIZE_BYTES
    while (left := boundary - flushed()) > 20_000:
        replicated.query("primary", emit, min(left - 15_000, 1 << 20))
    while (end := flushed()) <= boundary:
        replicated.query("primary", emit, record_bytes)
    kill_9(replicated, "primary")
    assert end - boundary < 40_000
    assert fence(replicated.server("primary")).end_of_log(end) >= end
