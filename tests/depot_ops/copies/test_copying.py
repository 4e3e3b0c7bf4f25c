"""What is proved here is there after a pass, whole or not at all, however often passes were killed."""

import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from depot_ops.copies.checks import check_age, check_complete
from depot_ops.copies.copying import CopyRunning, copy_backups, sole_copier
from depot_ops.copies.holdings import list_copy, listing, look
from depot_ops.copies.proofs import remove_damaged, verify_copy
from depot_ops.copies.units import units
from depot_ops.evidence import Status, worst
from depot_ops.places import Place
from depot_ops.postgres.base_record import RECORD_NAME
from depot_ops.postgres.dump_record import record_path
from depot_ops.postgres.wal.names import parse_wal_name, segment_name

FIRST_SEED, SEEDS = int(os.environ.get("SEED", "0")), int(os.environ.get("COPY_SEEDS", "3"))
HOUR = timedelta(hours=1)
COPY = """
import sys
from pathlib import Path
from depot_ops.copies.copying import copy_backups
from depot_ops.places import open_place
place = open_place(sys.argv[3])
print("ready", flush=True)
copy_backups(Path(sys.argv[1]), Path(sys.argv[2]), place, say=lambda text: print(text, flush=True))
"""

# Reports each deletion, and waits to be told that it may go on.
REPAIR = """
import sys
from pathlib import Path
from depot_ops.copies.holdings import look
from depot_ops.copies.proofs import remove_damaged, verify_copy
from depot_ops.places import open_place
place = open_place(sys.argv[3])
delete = place.delete
def told(key):
    delete(key)
    print(key, flush=True)
    sys.stdin.readline()
place.delete = told
holdings = look(place, Path(sys.argv[4]))
list(verify_copy(holdings))
remove_damaged(holdings, Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def filled(estate):
    """Two nights, a chain of two, a drill, and the log."""
    estate.nights(2)
    full = estate.base(0)
    estate.base(1, full)
    estate.log(14)
    estate.drill(full)
    return estate


def copy(estate, place: Place, **options):
    return copy_backups(estate.backup_dir, estate.archive.root, place, **options)


def keys(estate) -> set[str]:
    return {file.key for unit in units(estate.backup_dir, estate.archive.root) for file in unit.files}


def verified(place: Place, tmp_path) -> dict[str, str]:
    """What is damaged there, and how it is told."""
    findings = list(verify_copy(look(place, tmp_path / f"home-{random.random()}")))
    return {str(f.figures["file"]): f.detail for f in findings if f.status is not Status.HEALTHY}


def test_everything_is_there_after_one_pass_and_the_second_copies_nothing(filled, place, tmp_path):
    said = []
    copied = copy(filled, place, say=said.append)
    assert copied.refused == ()
    assert set(listing(place)) == keys(filled)
    assert len(said) == len(copied.copied) == sum(copied.units.values()) == 2 + 2 + 15 + 1
    assert verified(place, tmp_path) == {}
    again = copy(filled, place)
    assert (again.copied, again.copied_bytes, again.units) == ((), 0, copied.units)


def test_only_what_is_proved_is_copied(filled, place):
    dump = filled.dump(datetime(2026, 2, 1, tzinfo=UTC))
    record_path(dump).write_text(record_path(dump).read_text().replace('"healthy"', '"unhealthy"'))
    name = parse_wal_name(segment_name(1, 14))
    filled.archive.record_path(name).unlink()
    copy(filled, place)
    held = listing(place)
    assert not [key for key in held if dump.name in key or name.name in key]


def test_what_is_damaged_here_is_refused_by_name_and_the_rest_is_copied(filled, place, tmp_path):
    night = filled.dump(datetime(2026, 2, 1, tzinfo=UTC), content=b"whole")
    night.write_bytes(b"wrong")
    name = parse_wal_name(segment_name(1, 3))
    filled.archive.file_path(name).write_bytes(
        filled.archive.file_path(parse_wal_name(segment_name(1, 4))).read_bytes()
    )
    copied = copy(filled, place)
    assert {refusal.name for refusal in copied.refused} == {night.name, name.name}
    assert copied.status is Status.UNHEALTHY
    assert verified(place, tmp_path) == {}
    assert not [key for key in listing(place) if name.name in key]
    assert check_age(filled.backup_dir, HOUR).status is Status.UNHEALTHY  # no pass was complete


def test_an_incremental_waits_for_what_it_builds_on(estate, place):
    full = estate.base(0)
    incremental = estate.base(1, full)
    estate.log(14)
    (full / "base.tar.gz").write_bytes(b"damaged")
    copied = copy(estate, place)
    assert [refusal.name for refusal in copied.refused] == [full.name, incremental.name]
    assert not [key for key in listing(place) if key.endswith(RECORD_NAME)]


def test_nothing_that_is_there_is_overwritten(filled, place, place_dir):
    copy(filled, place)
    dump = sorted(filled.backup_dir.glob("*.dump"))[0]
    there = place_dir / "backups" / dump.name
    there.write_bytes(b"somebody else's")
    copied = copy(filled, place)
    assert [refusal.name for refusal in copied.refused] == [dump.name]
    assert there.read_bytes() == b"somebody else's"


def test_what_was_lost_there_is_copied_again(filled, place, place_dir):
    copy(filled, place)
    victims = [path for path in place_dir.rglob("*") if path.is_file()][::3]
    for victim in victims:
        victim.unlink()
    copy(filled, place)
    assert set(listing(place)) == keys(filled)


@pytest.mark.parametrize(
    "victim", ["*.dump", "*.dump.json", "base.tar.gz", "backup_manifest", "backup.json", "*3.gz", "*3.json"]
)
def test_damage_there_is_named(filled, place, place_dir, tmp_path, victim):
    copy(filled, place)
    path = sorted(place_dir.rglob(victim))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told = str(verified(place, tmp_path))
    assert (path.parent.name if path.parent.parent.name.isdecimal() else path.name.removesuffix(".json")) in told
    holdings = look(place, tmp_path / "home")
    list(verify_copy(holdings))
    remove_damaged(holdings, filled.backup_dir, filled.archive.root)
    assert copy(filled, place).refused == ()
    assert verified(place, tmp_path) == {}
    assert set(listing(place)) == keys(filled)


@pytest.mark.parametrize("deletions", [1, 2, 4])
def test_a_repair_that_was_killed_is_run_again(filled, place, place_dir, tmp_path, deletions):
    copy(filled, place)
    for path in [*place_dir.rglob("*.dump"), *place_dir.rglob("base.tar.gz"), *place_dir.rglob("*3.gz")]:
        path.write_bytes(b"swor")
    arguments = [filled.backup_dir, filled.archive.root, place_dir.as_uri(), tmp_path / "killed"]
    command = [sys.executable, "-c", REPAIR, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(deletions - 1):
            assert process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    holdings = look(place, tmp_path / "home")
    list(verify_copy(holdings))
    remove_damaged(holdings, filled.backup_dir, filled.archive.root)
    assert copy(filled, place).refused == ()
    assert verified(place, tmp_path) == {}
    assert set(listing(place)) == keys(filled)


def test_what_is_damaged_here_too_is_not_removed_there(filled, place, place_dir, tmp_path):
    copy(filled, place)
    dump = sorted(filled.backup_dir.glob("*.dump"))[0]
    for path in (dump, place_dir / "backups" / dump.name):
        path.write_bytes(b"swor")
    holdings = look(place, tmp_path / "home")
    list(verify_copy(holdings))
    assert remove_damaged(holdings, filled.backup_dir, filled.archive.root) == []
    assert set(listing(place)) == keys(filled)


def test_a_half_copied_backup_is_not_listed(filled, place, place_dir, tmp_path):
    copy(filled, place)
    sorted(place_dir.rglob("backup.json"))[-1].unlink()
    sorted(place_dir.rglob("*.dump.json"))[-1].unlink()
    findings = list_copy(look(place, tmp_path / "home"))
    assert worst(findings) is Status.HEALTHY
    assert len(findings) == 2
    sorted(place_dir.rglob("base.tar.gz"))[0].unlink()
    [broken] = [f for f in list_copy(look(place, tmp_path / "again")) if f.status is Status.UNHEALTHY]
    assert "is gone" in broken.detail


def test_what_a_killed_pass_left_half_written_goes_when_it_is_old(filled, place, place_dir):
    copy(filled, place)
    left = [place_dir / "backups" / f".partial-{name}" for name in ("long-ago", "now")]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (0, 0))
    copy(filled, place)
    assert [path.exists() for path in left] == [False, True]


def test_one_copier_at_a_time(filled, place):
    with sole_copier(filled.backup_dir), pytest.raises(CopyRunning):
        copy(filled, place)


def test_what_waits_too_long_is_an_alarm(filled, place):
    unfinished = check_complete(filled.backup_dir, filled.archive.root, place, HOUR)
    assert (unfinished.status, unfinished.figures["missing_units"]) == (Status.HEALTHY, 20)
    late = check_complete(filled.backup_dir, filled.archive.root, place, timedelta(0))
    assert late.status is Status.UNHEALTHY
    copied = copy(filled, place)
    whole = check_complete(filled.backup_dir, filled.archive.root, place, timedelta(0))
    assert (whole.status, whole.figures["missing_bytes"]) == (Status.HEALTHY, 0)
    assert check_age(filled.backup_dir, HOUR).status is Status.HEALTHY
    assert check_age(filled.backup_dir, timedelta(0)).status is Status.UNHEALTHY
    assert copied.status is Status.HEALTHY


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_killed_at_any_moment_and_run_again(estate, place, place_dir, tmp_path, seed):
    chance = random.Random(seed)
    dumps = [estate.dump(datetime(2026, 1, 1 + n, tzinfo=UTC), content=os.urandom(1 << 20)) for n in range(4)]
    estate.base(1, estate.base(0))
    estate.log(40)
    while True:
        command = [sys.executable, "-c", COPY, estate.backup_dir, estate.archive.root, place_dir.as_uri()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(chance.randint(1, 60)):
            if not process.stdout.readline():
                break
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        assert verified(place, tmp_path) == {}
        listed = list_copy(look(place, tmp_path / f"{chance.random()}"))
        assert {finding.status for finding in listed} <= {Status.HEALTHY}
        if not killed:
            break
    assert copy(estate, place).copied_bytes == 0
    assert set(listing(place)) == keys(estate)
    assert [name for name in listing(place) if name.endswith(".dump")] == [f"backups/{dump.name}" for dump in dumps]
