"""The archive takes a file once, keeps it, and gives back what was stored or says what happened to it."""

import hashlib
import os
import random
import threading

import pytest

from depot_ops.postgres.wal.archive import (
    ArchiveConflict,
    ArchiveDamaged,
    ArchiveError,
    NotArchived,
    Outcome,
    WalArchive,
    open_archive,
)
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.names import parse_wal_name

HISTORY = parse_wal_name("00000002.history")


@pytest.fixture
def archive(archive_root, system_identifier) -> WalArchive:
    return WalArchive(archive_root, system_identifier)


def partials(archive: WalArchive) -> list[str]:
    return [path.name for path in archive.root.rglob(".partial-*")]


def test_what_is_stored_comes_back(archive, segments):
    for name, content in segments:
        assert archive.store(name, content) is Outcome.STORED
    for name, content in segments:
        assert archive.fetch(name) == content
        record = archive.record(name)
        assert (record.sha256, record.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert record.stored_size_bytes == archive.file_path(name).stat().st_size
    assert archive.names() == [name for name, _ in segments]
    assert partials(archive) == []


def test_the_same_again_is_success(archive, segments):
    name, content = segments[0]
    archive.store(name, content)
    before = archive.file_path(name).stat().st_ino
    assert archive.store(name, content) is Outcome.ALREADY_THERE
    assert archive.file_path(name).stat().st_ino == before


def test_other_content_under_the_same_name_is_refused_and_kept_out(archive, segments):
    """As from a clone that was started with its archiving on: a good segment, of the same cluster, but another."""
    name, content = segments[0]
    archive.store(name, content)
    other = content[:4000] + bytes([content[4000] ^ 1]) + content[4001:]
    with pytest.raises(ArchiveConflict, match="holds other content"):
        archive.store(name, other)
    assert archive.fetch(name) == content


@pytest.mark.parametrize("damage", [lambda c: bytes(len(c)), lambda c: c[:-8192]], ids=["zeros", "short"])
def test_what_is_no_segment_does_not_enter(archive, segments, damage):
    name, content = segments[0]
    with pytest.raises(BadWalFile):
        archive.store(name, damage(content))
    assert not archive.root.exists()


def test_only_where_a_timeline_began_it_has_pages_of_another(archive, segments):
    """In one page, the record after a promotion may be the last of its segment: no page has the new number then."""
    _, (name, content), (other_name, other) = segments
    archive.store(*segments[0])
    first, later = (parse_wal_name(f"00000002{n.name[8:]}") for n in (name, other_name))
    with pytest.raises(BadWalFile, match=r"00000002\.history"):
        archive.store(first, content)
    position = name.segment_number() * 16 << 20
    archive.store(HISTORY, b"1\t0/%X\tno recovery target specified\n" % (position + 4000))
    assert archive.store(first, content) is Outcome.STORED
    with pytest.raises(BadWalFile, match="did not begin in it"):
        archive.store(later, other)


def test_a_writer_killed_between_file_and_record_is_completed(archive, segments):
    name, content = segments[0]
    archive.store(name, content)
    archive.record_path(name).unlink()
    assert archive.fetch(name) == content
    assert archive.store(name, content) is Outcome.ALREADY_THERE
    assert archive.record(name) is not None


def test_a_damaged_file_is_mended_by_the_same_content_only(archive, segments):
    name, content = segments[0]
    archive.store(name, content)
    archive.file_path(name).write_bytes(b"damage")
    other = content[:4000] + bytes([content[4000] ^ 1]) + content[4001:]
    with pytest.raises(ArchiveDamaged):
        archive.store(name, other)
    assert archive.store(name, content) is Outcome.ALREADY_THERE
    assert archive.fetch(name) == content


def test_random_damage_is_named_or_harmless(archive, segments):
    name, content = segments[1]
    archive.store(name, content)
    for seed in range(60):
        chance = random.Random(seed)
        path = chance.choice([archive.file_path(name), archive.record_path(name)])
        good = path.read_bytes()
        bad = bytearray(good)
        if chance.random() < 0.3:
            del bad[chance.randrange(len(bad)) :]
        else:
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        try:
            assert archive.fetch(name) == content
        except ArchiveError as error:
            assert name.name in str(error)
            assert not isinstance(error, NotArchived)
        path.write_bytes(good)


def test_absence_is_only_what_was_looked_at(archive, segments):
    (name, content), (absent, _), _ = segments
    with pytest.raises(ArchiveError, match="mounted") as unreachable:
        archive.fetch(absent)
    assert not isinstance(unreachable.value, NotArchived)
    archive.store(name, content)
    with pytest.raises(NotArchived):
        archive.fetch(absent)
    archive.file_path(name).unlink()
    with pytest.raises(ArchiveDamaged, match="is gone"):
        archive.fetch(name)


def test_an_archive_that_cannot_be_opened_says_what_to_look_at(tmp_path):
    with pytest.raises(ArchiveError, match="is it mounted, and is this its name"):
        open_archive(tmp_path / "archvie")
    with pytest.raises(ArchiveError, match="no cluster yet: is archiving on"):
        open_archive(tmp_path)
    for cluster in ("7000000000000000001", "7000000000000000002"):
        (tmp_path / cluster).mkdir()
    with pytest.raises(ArchiveError, match="--system-identifier"):
        open_archive(tmp_path)


def test_writers_at_once_leave_one_file(archive, segments):
    name, content = segments[0]
    outcomes: list[Outcome] = []
    start = threading.Barrier(4)

    def store() -> None:
        start.wait()
        outcomes.append(archive.store(name, content))

    threads = [threading.Thread(target=store) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [Outcome.ALREADY_THERE] * 3 + [Outcome.STORED]
    assert archive.fetch(name) == content
    assert partials(archive) == []


def test_different_writers_at_once_have_one_winner(archive):
    contents = [b"1\t0/%d000000\tno recovery target specified\n" % number for number in range(1, 5)]
    results: list[object] = []
    start = threading.Barrier(len(contents))

    def store(content: bytes) -> None:
        start.wait()
        try:
            results.append(archive.store(HISTORY, content))
        except ArchiveConflict as error:
            results.append(error)

    threads = [threading.Thread(target=store, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(Outcome.STORED) == 1
    assert sum(isinstance(result, ArchiveConflict) for result in results) == 3
    assert archive.fetch(HISTORY) in contents


def test_debris_of_the_dead_goes_and_that_of_the_living_stays(archive, segments):
    name, content = segments[0]
    archive.store(name, content)
    directory = archive.file_path(name).parent
    old, new = directory / ".partial-old", directory / ".partial-new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    archive.remove_debris()
    assert partials(archive) == [new.name]
