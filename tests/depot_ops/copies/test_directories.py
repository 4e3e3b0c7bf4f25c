"""A dump that is a directory is copied, verified, let go and fetched as one that is a file."""

import shutil
from datetime import UTC, datetime

from depot_ops.copies.copying import copy_backups
from depot_ops.copies.holdings import fetch_dump, list_copy, listing, look
from depot_ops.copies.proofs import remove_damaged, verify_copy
from depot_ops.copies.pruning import prune_copy
from depot_ops.evidence import Status, worst
from depot_ops.postgres.dump_checks import sha256_of, sha256_of_files
from depot_ops.postgres.dump_record import DumpFormat, load_record, record_path, stored_bytes
from depot_ops.postgres.prune import prune
from depot_ops.postgres.retention import KeepPolicy


def make_directory(dump):
    record = load_record(dump)
    dump.unlink()
    dump.mkdir()
    for name in ("toc.dat", "1.dat.gz", "2.dat.gz"):
        (dump / name).write_bytes(name.encode() * 9)
    update = {
        "format": DumpFormat.DIRECTORY,
        "sha256": sha256_of(dump),
        "files": sha256_of_files(dump),
        "size_bytes": stored_bytes(dump),
    }
    record_path(dump).write_text(record.model_copy(update=update).model_dump_json())


def test_round_trip(estate, place, place_dir, tmp_path):
    first, *rest = [estate.dump(datetime(2026, 1, day, tzinfo=UTC)) for day in range(1, 5)]
    make_directory(first)
    make_directory(rest[0])
    assert copy_backups(estate.backup_dir, None, place).refused == ()
    assert f"backups/{first.name}/toc.dat" in listing(place)
    assert worst(list_copy(look(place, tmp_path / "a"))) is Status.HEALTHY
    assert worst(verify_copy(look(place, tmp_path / "b"))) is Status.HEALTHY
    fetched = fetch_dump(place, first.name, tmp_path / "c")
    assert sha256_of(fetched) == load_record(first).sha256
    damaged = place_dir / "backups" / first.name / "1.dat.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    holdings = look(place, tmp_path / "d")
    assert worst(verify_copy(holdings)) is Status.UNHEALTHY
    assert len(remove_damaged(holdings, estate.backup_dir, None)) == 3
    assert copy_backups(estate.backup_dir, None, place).refused == ()
    assert worst(verify_copy(look(place, tmp_path / "e"))) is Status.HEALTHY
    two = KeepPolicy(minutes=0, days=2, weeks=0, months=0)
    shutil.rmtree(first)
    record_path(first).unlink()
    prune(estate.retention(two, two))
    assert len(prune_copy(estate.retention(two, two), place).deleted) == 2
    assert not [key for key in listing(place) if first.name in key]
