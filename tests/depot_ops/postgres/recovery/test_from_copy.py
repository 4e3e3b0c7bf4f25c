"""Everything here is lost, and what was copied gives exactly the rows: or the restore is refused with what is wrong."""

import os
import random
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from depot_ops.cli import app
from depot_ops.copies.copying import copy_backups
from depot_ops.local.ports import any_free
from depot_ops.places import Place, open_place
from depot_ops.postgres.base_record import BaseBackupKind
from depot_ops.postgres.dump import take_logical_backup
from depot_ops.postgres.in_place import restore_in_place
from depot_ops.postgres.recovery import restore
from depot_ops.postgres.recovery_plan import RestoreRefused, SourceIncomplete, Target

LATEST = Target()
FIRST_SEED, SEEDS = int(os.environ.get("SEED", "0")), int(os.environ.get("COPY_SEEDS", "1"))


class Copied:
    """A primary whose backups were copied, and a directory to restore into."""

    def __init__(self, primary, home: Path, incremental: BaseBackupKind) -> None:
        self.primary = primary
        self.home = home
        self.place_dir = home / "second"
        self.place_dir.mkdir()
        self.place = open_place(self.place_dir.as_uri())
        primary.insert(2)
        self.full = primary.back_up()
        self.moment = primary.insert(2)
        primary.insert(1)
        self.incremental = primary.back_up(incremental)
        primary.insert(2)
        primary.archive_all()
        self.dump = take_logical_backup(primary.url, primary.backup_dir, primary.cluster.binaries)
        assert copy_backups(primary.backup_dir, primary.archive_root, self.place).refused == ()

    def restore(self, to: Path, target: Target = LATEST, place: Place | None = None, **options):
        binaries, account = self.primary.cluster.binaries, self.primary.cluster.account
        nowhere = self.home / "gone"
        return restore(to, nowhere, nowhere, binaries, account, target, copy=place or self.place, **options)

    def rows(self, data: Path) -> list[int]:
        """Start what was restored as anybody would, and read it."""
        restored = replace(self.primary.cluster, home=data.parent, port=any_free())
        restored.start()
        try:
            with psycopg.connect(restored.url(), autocommit=True) as connection:
                return [row for (row,) in connection.execute("SELECT id FROM numbered ORDER BY id").fetchall()]
        finally:
            restored.stop()


@contextmanager
def lost(path: Path):
    """Not there while the block runs."""
    aside = path.with_name(f".partial-{path.name}")
    path.rename(aside)
    yield
    aside.rename(path)


@pytest.fixture(scope="module")
def copied(shared_primary, incremental) -> Copied:
    return Copied(*shared_primary, incremental)


@pytest.fixture
def to(copied):
    """A new data directory whose home a server can keep its socket in."""
    home = Path(tempfile.mkdtemp(dir=copied.home))
    home.chmod(0o711)
    copied.primary.cluster.account.own(home)
    yield home / "data"
    shutil.rmtree(home)


def test_the_latest_from_a_chain(copied, to):
    report = copied.restore(to, verify=True)
    assert report.backups == (copied.full.record.label, copied.incremental.record.label)
    assert copied.rows(to) == copied.primary.rows() == [1, 2, 3, 4, 5, 6, 7]
    assert [path.name for path in to.parent.iterdir() if path.name.startswith(".")] == []


def test_a_time_takes_the_older_base_and_fetches_no_other(copied, to):
    report = copied.restore(to, Target.at_time(copied.moment))
    assert report.backups == (copied.full.record.label,)
    assert copied.rows(to) == [1, 2, 3, 4]


@pytest.mark.parametrize("victim", ["base.tar.gz", "segment"])
def test_damage_there_is_refused_by_name(copied, to, victim):
    found = sorted(copied.place_dir.rglob("base.tar.gz" if victim == "base.tar.gz" else "*.gz"))
    path = found[0] if victim == "base.tar.gz" else [p for p in found if p.name[:8] == "00000001"][-1]
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    try:
        with pytest.raises(SourceIncomplete, match=path.name.removesuffix(".gz")):
            copied.restore(to)
        assert list(to.parent.iterdir()) == []
    finally:
        path.write_bytes(content)


def test_a_backup_that_is_not_whole_there_is_passed_over(copied, to):
    with lost(next(copied.place_dir.rglob(f"{copied.incremental.record.label}/backup.json"))):
        assert copied.restore(to).backups == (copied.full.record.label,)


def test_a_backup_whose_own_log_is_on_its_way_is_passed_over(copied, to):
    """As a pass leaves it that ran just when the backup ended: the log behind it is not there yet."""
    first = copied.incremental.record.start_segment
    behind = [path for path in copied.place_dir.rglob("*.*") if path.name[:24] >= first and path.name[:8] == first[:8]]
    with ExitStack() as stack:
        for path in behind:
            if path.suffix in (".gz", ".json") and path.parent.name == first[:8]:
                stack.enter_context(lost(path))
        assert copied.restore(to).backups == (copied.full.record.label,)
        assert copied.rows(to) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_random_damage_there_is_refused_or_harmless(copied, to, seed):
    chance = random.Random(seed)
    path = chance.choice(sorted(path for path in copied.place_dir.rglob("*.*") if path.is_file()))
    content = path.read_bytes()
    position = chance.randrange(len(content))
    flipped = content[:position] + bytes([content[position] ^ (1 << chance.randrange(8))]) + content[position + 1 :]
    damage = chance.choice([flipped, content[:position], None])
    path.unlink() if damage is None else path.write_bytes(damage)
    try:
        copied.restore(to)
        assert copied.rows(to) == [1, 2, 3, 4, 5, 6, 7], path
    except RestoreRefused as refusal:
        assert path.name.removesuffix(".gz").removesuffix(".json") in str(refusal), path
        assert list(to.parent.iterdir()) == []
    finally:
        path.write_bytes(content)


def test_the_commands(copied, to, monkeypatch, tmp_path):
    binaries = copied.primary.cluster.binaries
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(binaries.bindir))
    monkeypatch.setenv("BACKUP_COPY_URL", copied.place_dir.as_uri())
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "gone"))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(tmp_path / "gone"))
    refused = CliRunner().invoke(app, ["restore", "--to", str(to), "--latest"])
    assert refused.exit_code == 1
    assert "--from-copy" in refused.stderr
    restored = CliRunner().invoke(app, ["restore", "--from-copy", "--to", str(to), "--latest"])
    assert restored.exit_code == 0, restored.stderr
    assert (to / "PG_VERSION").exists()
    listed = CliRunner().invoke(app, ["backup", "list", "--from-copy"])
    assert listed.exit_code == 0
    assert copied.dump.file in listed.stdout
    arguments = ["--url", copied.primary.url, "--database", "again"]
    missing = CliRunner().invoke(app, ["restore-dump", str(tmp_path / copied.dump.file), *arguments])
    assert missing.exit_code == 1
    assert "--from-copy" in missing.stderr
    loaded = CliRunner().invoke(app, ["restore-dump", copied.dump.file, "--from-copy", *arguments])
    assert loaded.exit_code == 0, loaded.stderr
    assert CliRunner().invoke(app, ["backup", "copy", "--verify"]).exit_code == 0
    with lost(next(copied.place_dir.rglob("*.dump"))):
        assert CliRunner().invoke(app, ["backup", "copy", "--verify"]).exit_code == 1
        assert CliRunner().invoke(app, ["backup", "list", "--from-copy"]).exit_code == 1


def test_in_place_from_the_copy_goes_on_archiving(copied, to):
    binaries, account = copied.primary.cluster.binaries, copied.primary.cluster.account
    archive = copied.home / "new-archive"
    nowhere = copied.home / "gone"
    report = restore_in_place(to, nowhere, archive, binaries, account, LATEST, force=False, copy=copied.place)
    assert report.set_aside is None
    assert [path.name for path in archive.rglob("*.history.gz")] == [f"{report.new_timeline:08X}.history.gz"]


def test_round_trip_over_object_storage(copied, to, bucket):
    place = open_place(bucket.url)
    assert copy_backups(copied.primary.backup_dir, copied.primary.archive_root, place).refused == ()
    assert copied.restore(to, place=place).segments > 1
    assert copied.rows(to) == [1, 2, 3, 4, 5, 6, 7]
    shutil.rmtree(to)
    segment = max(key for key in bucket.stored() if key.endswith(".gz") and "/wal/" in key)
    bucket.flip_a_bit(segment)
    with pytest.raises(SourceIncomplete, match=Path(segment).name.removesuffix(".gz")):
        copied.restore(to, place=place)
