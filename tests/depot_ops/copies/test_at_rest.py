"""Damage that comes after the proof is found within a fortnight, wherever it is."""

import dagster as dg
import pytest

from depot_ops.assets.at_rest import backups_at_rest
from depot_ops.copies.at_rest import SHARES, verify_share, verify_share_of_copy
from depot_ops.copies.copying import copy_backups
from depot_ops.copies.holdings import look
from depot_ops.evidence import Status
from depot_ops.postgres.binaries import find_binaries


@pytest.fixture
def filled(estate, monkeypatch):
    """The estate's base backups have no tar inside: what is asked for here are their hashes."""
    monkeypatch.setattr("depot_ops.postgres.base_backup._verify_tree", lambda *_: None)
    estate.nights(6)
    estate.weeks_of_chains(1)
    estate.log(30)
    return estate


def wrong(findings) -> list[str]:
    return [finding.detail for finding in findings if finding.status is not Status.HEALTHY]


def every_share(estate) -> list[str]:
    found = []
    for share in range(SHARES):
        found += wrong(verify_share(estate.backup_dir, estate.archive.root, find_binaries(), share, lambda _: None))
    return found


def flip_a_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_bit_that_flips_in_anything_is_found_by_one_share_of_all(filled):
    assert every_share(filled) == []
    victims = [
        sorted(filled.backup_dir.glob("*.dump"))[0],
        sorted(filled.backup_dir.rglob("base.tar.gz"))[0],
        sorted(filled.archive.root.rglob("*.gz"))[0],
    ]
    for path in victims:
        flip_a_bit(path)
    told = " ".join(every_share(filled))
    assert "SHA-256 is not what was written" in told
    assert str(victims[1]) in told
    assert str(victims[2]) in told
    assert len(every_share(filled)) == 3


def test_the_copy_too(filled, place, place_dir, tmp_path):
    copy_backups(filled.backup_dir, filled.archive.root, place)
    victims = [sorted(place_dir.rglob(name))[0] for name in ("*.dump", "base.tar.gz", "0000*.gz")]
    for path in victims:
        flip_a_bit(path)
    told = [wrong(verify_share_of_copy(look(place, tmp_path / f"{share}"), share)) for share in range(SHARES)]
    assert sorted(map(len, told))[-3:] in ([1, 1, 1], [0, 1, 2], [0, 0, 3])
    assert all(path.relative_to(place_dir).as_posix() in str(told) for path in victims)


def test_the_asset_is_red_and_names_it(filled, monkeypatch):
    monkeypatch.setenv("BACKUP_DIR", str(filled.backup_dir))
    monkeypatch.setenv("WAL_ARCHIVE_DIR", str(filled.archive.root))
    for path in filled.archive.root.rglob("*.gz"):
        flip_a_bit(path)
    result = dg.materialize([backups_at_rest], raise_on_error=False, selection=[backups_at_rest])
    assert not result.success
