"""Every way in which a backup goes bad is found by at least one check, and none is skipped."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from depot_ops.evidence import Status, worst
from depot_ops.postgres.dump_checks import DumpCheck, verify, verify_newest
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable, glance, load_record, record_path

HEALTHY, UNHEALTHY, UNKNOWN = Status.HEALTHY, Status.UNHEALTHY, Status.UNKNOWN


def statuses(dump: Path, binaries) -> dict[str, Status]:
    return {finding.check: finding.status for finding in verify(dump, binaries)}


def edit_record(dump: Path, **changes: object) -> None:
    path = record_path(dump)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"record_sha256": ""} | changes))


def flip_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x01
    path.write_bytes(content)


def test_a_whole_backup_passes_every_check_with_figures(dump, cluster):
    findings = verify(dump, cluster.binaries)
    assert [finding.check for finding in findings] == list(DumpCheck)
    assert worst(findings) is HEALTHY
    rows = findings[-1].figures
    assert rows["rows"] == rows["expected_rows"] == 5100
    assert all(finding.figures["file"] == dump.name for finding in findings)


def test_a_truncated_dump_is_listed_but_not_healthy(dump, cluster):
    content = dump.read_bytes()
    dump.write_bytes(content[: len(content) * 6 // 10])
    found = statuses(dump, cluster.binaries)
    assert found["restorable_listing"] is HEALTHY  # which is why the listing alone proves nothing
    assert {found["full_read"], found["checksum"], found["row_counts"]} == {UNHEALTHY}
    assert glance(dump).status is UNHEALTHY


def test_one_byte_less_is_found(dump, cluster):
    dump.write_bytes(dump.read_bytes()[:-1])
    assert statuses(dump, cluster.binaries)["checksum"] is UNHEALTHY


def test_a_flipped_byte_in_compressed_data_is_found_by_reading_it(dump, cluster):
    flip_byte(dump, dump.stat().st_size - 2000)
    found = statuses(dump, cluster.binaries)
    assert found["full_read"] is UNHEALTHY
    assert found["checksum"] is UNHEALTHY


def test_a_flipped_byte_in_uncompressed_data_is_found_by_the_checksum_alone(uncompressed_dump, cluster):
    flip_byte(uncompressed_dump, uncompressed_dump.read_bytes().index(b"characters/hero/4711"))
    assert statuses(uncompressed_dump, cluster.binaries) == {
        "restorable_listing": HEALTHY,
        "full_read": HEALTHY,
        "checksum": UNHEALTHY,
        "row_counts": HEALTHY,
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_flip_anywhere_is_found_and_breaks_no_check(seed, uncompressed_dump, cluster):
    whole = uncompressed_dump.read_bytes()
    dice = random.Random(seed)
    for offset in [seed, *dice.sample(range(len(whole)), 9)]:
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << dice.randrange(8)
        uncompressed_dump.write_bytes(damaged)
        assert statuses(uncompressed_dump, cluster.binaries)["checksum"] is UNHEALTHY


def test_an_empty_file_is_unhealthy_in_every_respect(dump, cluster):
    dump.write_bytes(b"")
    assert set(statuses(dump, cluster.binaries).values()) == {UNHEALTHY}


def test_without_its_record_nothing_proves_a_dump(dump, cluster):
    record_path(dump).unlink()
    findings = verify(dump, cluster.binaries)
    assert {finding.status for finding in findings} == {UNHEALTHY}
    assert "missing" in findings[0].detail


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"schema_version": 1}', b"\xff\xfe"])
def test_a_damaged_record_is_unhealthy(dump, cluster, content):
    record_path(dump).write_bytes(content)
    assert set(statuses(dump, cluster.binaries).values()) == {UNHEALTHY}


def test_a_flipped_bit_in_the_record_is_found_or_harmless(dump):
    known, good = load_record(dump), record_path(dump).read_bytes()
    for position in range(0, len(good), 3):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 7
        record_path(dump).write_bytes(bad)
        try:
            assert load_record(dump) == known
        except (RecordTooNew, RecordUnusable):
            continue


def test_a_record_of_a_later_version_is_unknown(dump, cluster):
    edit_record(dump, schema_version=4)
    assert set(statuses(dump, cluster.binaries).values()) == {UNKNOWN}
    assert glance(dump).status is UNKNOWN


def test_a_lost_dump_is_unhealthy_and_not_forgotten(dump, cluster, backups, monkeypatch):
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    dump.unlink()
    findings = verify_newest(backups)
    assert {finding.status for finding in findings} == {UNHEALTHY}
    assert findings[0].figures["file"] == dump.name
    assert glance(dump).status is UNHEALTHY


def test_rows_that_differ_from_the_source_are_named_by_table(dump, cluster):
    edit_record(dump, row_counts={"public.assets": 5001, "public.users": 100})
    rows = verify(dump, cluster.binaries, [DumpCheck.ROW_COUNTS])[0]
    assert rows.status is UNHEALTHY
    assert "public.assets: 5000 instead of 5001" in rows.detail


def test_an_object_that_the_source_had_and_the_dump_has_not_is_named(dump, cluster):
    edit_record(dump, source_objects={"TABLE": 2, "POLICY": 1})
    listing = verify(dump, cluster.binaries, [DumpCheck.RESTORABLE_LISTING])[0]
    assert listing.status is UNHEALTHY
    assert "POLICY: 0 instead of 1" in listing.detail


def test_a_tool_that_crashes_is_unhealthy_never_skipped(dump, cluster, tmp_path):
    crashing = tmp_path / "bin"
    crashing.mkdir()
    (crashing / "pg_restore").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (crashing / "pg_restore").chmod(0o755)
    findings = verify(dump, replace(cluster.binaries, bindir=crashing))
    found = {finding.check: finding for finding in findings}
    assert {found[name].status for name in ("restorable_listing", "full_read", "row_counts")} == {UNHEALTHY}
    assert "SIGSEGV" in found["full_read"].detail
    assert found["checksum"].status is HEALTHY


def test_the_newest_backup_is_the_one_that_is_verified(dump, cluster, source, backups, monkeypatch):
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    later = dump.with_name("depot-29991231T235959Z.dump")
    later.write_bytes(dump.read_bytes()[:-1])
    record_path(later).write_bytes(record_path(dump).read_bytes())
    assert worst(verify_newest(backups)) is UNHEALTHY


def test_no_backup_is_unhealthy_and_a_directory_out_of_reach_is_unknown(tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(cluster.binaries.bindir))
    assert {finding.status for finding in verify_newest(tmp_path)} == {UNHEALTHY}
    assert {finding.status for finding in verify_newest(tmp_path / "not-mounted")} == {UNKNOWN}


def test_without_programs_nothing_is_known(dump, backups, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPOT_PG_BINDIR", str(tmp_path / "nothing-here"))
    assert {finding.status for finding in verify_newest(backups)} == {UNKNOWN}
