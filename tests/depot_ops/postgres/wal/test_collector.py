"""Nothing leaves the spool before the archive has it, whatever happens; what is wrong stays and is named."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depot_ops.postgres.wal.archive import WalArchive
from depot_ops.postgres.wal.collector import Collected, CollectError, CollectorRunning, collect, spooled
from depot_ops.postgres.wal.names import parse_wal_name

COLLECT = """
import sys
from pathlib import Path
from depot_ops.postgres.wal.collector import collect
print("ready", flush=True)
collected = collect(Path(sys.argv[1]), Path(sys.argv[2]))
sys.exit(bool(collected.refused))
"""


def waiting(spool: Path) -> list[str]:
    return [name.name for name in spooled(spool)]


def test_segments_move_into_the_archive(spool, archive_root, segments, system_identifier):
    collected = collect(spool, archive_root)
    assert collected.stored == [name.name for name, _ in segments]
    assert collected.collected_bytes == 3 * 16 << 20
    assert waiting(spool) == []
    archive = WalArchive(archive_root, system_identifier)
    assert [archive.fetch(name) for name, _ in segments] == [content for _, content in segments]


def test_a_running_server_is_collected(primary, archive_root, system_identifier):
    name = primary.finish_segment()
    assert name in collect(primary.spool, archive_root).stored
    following = primary.finish_segment()
    assert following in collect(primary.spool, archive_root).stored
    assert WalArchive(archive_root, system_identifier).record(parse_wal_name(following))


def test_what_the_server_still_writes_is_left_alone(spool, archive_root):
    unfinished = spool / "archtemp.000000010000000000000009.12.34"
    unfinished.write_bytes(b"x")
    collect(spool, archive_root)
    assert unfinished.exists()


def test_nothing_to_do_is_nothing_done(tmp_path, archive_root):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert collect(empty, archive_root) == Collected()
    assert not archive_root.exists()


def test_what_is_archived_twice_leaves_the_spool(spool, archive_root, segments):
    """The server archives a segment again when it was killed before it had noted the first time."""
    collect(spool, archive_root)
    name, content = segments[1]
    (spool / name.name).write_bytes(content)
    assert collect(spool, archive_root).already_there == [name.name]
    assert waiting(spool) == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: bytes(len(c)), "zeros"),
        (lambda c: c[:-1], "not written whole"),
        (lambda c: c[:24] + b"\1\2\3\4" + c[28:], "of the cluster"),
    ],
    ids=["zero-filled", "wrong-size", "foreign"],
)
def test_a_bad_segment_stays_and_does_not_hold_up_the_others(
    spool, archive_root, segments, system_identifier, damage, reason
):
    name, content = segments[1]
    (spool / name.name).write_bytes(damage(content))
    collected = collect(spool, archive_root, system_identifier)
    assert [refusal.name for refusal in collected.refused] == [name.name]
    assert reason in collected.refused[0].reason
    assert waiting(spool) == [name.name]
    assert len(collected.stored) == 2


def test_a_foreign_segment_of_the_same_name_is_refused_and_kept(spool, archive_root, segments, system_identifier):
    collect(spool, archive_root)
    name, content = segments[0]
    foreign = content[:24] + (system_identifier + 1).to_bytes(8, sys.byteorder) + content[32:]
    (spool / name.name).write_bytes(foreign)
    (refusal,) = collect(spool, archive_root).refused
    assert str(system_identifier + 1) in refusal.reason
    assert (spool / name.name).read_bytes() == foreign
    assert WalArchive(archive_root, system_identifier).fetch(name) == content


def test_the_same_name_with_other_content_is_refused_and_kept(spool, archive_root, segments, system_identifier):
    collect(spool, archive_root)
    name, content = segments[0]
    other = content[:4000] + bytes([content[4000] ^ 1]) + content[4001:]
    (spool / name.name).write_bytes(other)
    (refusal,) = collect(spool, archive_root).refused
    assert "other content" in refusal.reason
    assert (spool / name.name).read_bytes() == other
    assert WalArchive(archive_root, system_identifier).fetch(name) == content


def test_whose_spool_it_is_must_be_known(spool, archive_root):
    for other in ("1", "2"):
        (archive_root / other).mkdir(parents=True)
    with pytest.raises(CollectError, match="--system-identifier"):
        collect(spool, archive_root)


def test_a_second_collector_refuses(spool, archive_root, segments):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(1,flush=True);sys.stdin.read()",
            str(spool / ".collect.lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout and holder.stdout.readline()
        with pytest.raises(CollectorRunning):
            collect(spool, archive_root)
        holder.kill()
    assert len(collect(spool, archive_root).stored) == 3


@pytest.mark.parametrize("seed", range(8))
def test_kill_9_at_any_moment_loses_nothing(spool, archive_root, segments, system_identifier, seed):
    archive = WalArchive(archive_root, system_identifier)
    process = subprocess.Popen([sys.executable, "-c", COLLECT, str(spool), str(archive_root)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout and process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
    for name, content in segments:
        kept = [(spool / name.name).read_bytes()] if (spool / name.name).exists() else []
        kept += [archive.fetch(name)] if archive.file_path(name).exists() else []
        assert kept and set(kept) == {content}
    assert not collect(spool, archive_root).refused
    assert waiting(spool) == []
    assert [archive.fetch(name) for name, _ in segments] == [content for _, content in segments]
    assert all(archive.record(name) for name, _ in segments)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_keeps_the_spool(spool, archive_root, segments, system_identifier):
    archive_root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", archive_root], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts nothing")
    try:
        first = segments[0][0].name
        collected = collect(spool, archive_root)
        assert first in [refusal.name for refusal in collected.refused]
        assert "no room is left" in collected.refused[0].reason
        assert first in waiting(spool)
        assert not list(archive_root.rglob(".partial-*"))
        subprocess.run(["mount", "-o", "remount,size=64m", archive_root], check=True)
        assert not collect(spool, archive_root).refused
        assert waiting(spool) == []
    finally:
        subprocess.run(["umount", archive_root], check=True)
