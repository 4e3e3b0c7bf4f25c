"""Proving a logical backup from the file and the record beside it, as often as anybody likes.

`pg_restore --list` passes on a truncated file, and a full read on a flipped byte in an uncompressed one: only the four
checks together say that this file is what was dumped.
"""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO

from depot_ops.evidence import Figures, Finding, Status
from depot_ops.postgres.binaries import Binaries, BinariesNotFound, find_binaries
from depot_ops.postgres.client_tools import ToolFailed, client_environment, running
from depot_ops.postgres.dump_record import (
    BackupRecord,
    RecordTooNew,
    RecordUnusable,
    load_record,
    newest_backups,
    stored_bytes,
)

LINE_PIECE_BYTES = 1 << 20  # a row can be a gigabyte long: it is read in pieces

_TOC_ENTRY = re.compile(rb"\d+; \d+ \d+ ([A-Z]+(?: [A-Z]+)*) ")
_IDENTIFIER = rb'"(?:[^"]|"")+"|[^". ]+'
_COPY = re.compile(rb"COPY (" + _IDENTIFIER + rb")\.(" + _IDENTIFIER + rb") .*FROM stdin;\n")


class DumpCheck(StrEnum):
    """The four proofs of a logical backup."""

    RESTORABLE_LISTING = "restorable_listing"
    FULL_READ = "full_read"
    CHECKSUM = "checksum"
    ROW_COUNTS = "row_counts"


def check_listing(dump: Path, record: BackupRecord, binaries: Binaries) -> Finding:
    """Is the table of contents the one that was dumped, and does it name every object that the source had?"""
    entries = read_toc(dump, binaries)
    problem = _difference("entries in the table of contents", record.toc_entries, entries)
    if not problem:
        listed = {kind: entries.get(kind, 0) for kind in record.source_objects}
        problem = _difference("objects against the source", record.source_objects, listed)
    return _finding(
        DumpCheck.RESTORABLE_LISTING,
        problem,
        f"all {sum(entries.values())} entries are listed",
        {"entries": sum(entries.values()), "expected_entries": sum(record.toc_entries.values())},
    )


def check_full_read(dump: Path, record: BackupRecord, binaries: Binaries) -> Finding:
    """Can every byte of the archive be read and decompressed?"""
    started = time.monotonic()
    command = [str(binaries.path("pg_restore")), "--file=/dev/null", str(dump)]
    with running(command, client_environment()):
        pass
    seconds = time.monotonic() - started
    figures: Figures = {
        "duration_seconds": round(seconds, 3),
        "rate_bytes_per_second": round(record.size_bytes / seconds),
    }
    return _finding(DumpCheck.FULL_READ, None, "the whole archive was read", figures)


def check_checksum(dump: Path, record: BackupRecord, binaries: Binaries) -> Finding:
    """Is the file, bit for bit, the one that was written?"""
    size_bytes = stored_bytes(dump)
    figures: Figures = {"size_bytes": size_bytes, "expected_size_bytes": record.size_bytes}
    if size_bytes != record.size_bytes:
        wrong_size = f"it has {size_bytes} bytes and was written with {record.size_bytes}"
        return _finding(DumpCheck.CHECKSUM, wrong_size, "", figures)
    seen = sha256_of(dump)
    problem = _changed(dump, record, seen)
    return _finding(DumpCheck.CHECKSUM, problem, f"SHA-256 is {seen}, as it was written", figures | {"sha256": seen})


def _changed(dump: Path, record: BackupRecord, seen: str) -> str | None:
    if record.globals and sha256(record.globals.sql.encode()).hexdigest() != record.globals.sha256:
        return "the statements for roles in its record are not those that were written"
    if seen == record.sha256:
        return None
    names = [name for name, digest in sha256_of_files(dump).items() if record.files.get(name) != digest]
    where = f" of {', '.join(names[:10])}" if names else ""
    return f"SHA-256{where} is not what was written: {seen} instead of {record.sha256}"


def check_row_counts(dump: Path, record: BackupRecord, binaries: Binaries) -> Finding:
    """Does the dump hold as many rows of each table as the source had in the dumped snapshot?"""
    rows = read_row_counts(dump, binaries)
    figures: Figures = {
        "rows": sum(rows.values()),
        "expected_rows": sum(record.row_counts.values()),
        "tables": len(rows),
        "expected_tables": len(record.row_counts),
    }
    healthy = f"{figures['rows']} rows in {len(rows)} tables, as the source had"
    return _finding(DumpCheck.ROW_COUNTS, _difference("rows", record.row_counts, rows), healthy, figures)


CHECKS: dict[DumpCheck, Callable[[Path, BackupRecord, Binaries], Finding]] = {
    DumpCheck.RESTORABLE_LISTING: check_listing,
    DumpCheck.FULL_READ: check_full_read,
    DumpCheck.CHECKSUM: check_checksum,
    DumpCheck.ROW_COUNTS: check_row_counts,
}


def prove(dump: Path, record: BackupRecord, binaries: Binaries, check: DumpCheck) -> Finding:
    """Run one check on `dump`. A program that fails or crashes is an unhealthy backup, never a skipped check."""
    try:
        finding = CHECKS[check](dump, record, binaries)
    except ToolFailed as error:
        finding = _finding(check, str(error), "", {})
    except FileNotFoundError:
        finding = _finding(check, "the file is gone; its record is still there", "", {})
    except (OSError, BinariesNotFound) as error:
        finding = Finding(check=check, status=Status.UNKNOWN, detail=f"{dump.name} could not be looked at: {error}")
    return finding.model_copy(update={"figures": {"file": record.file, "database": record.database, **finding.figures}})


def verify(dump: Path, binaries: Binaries, checks: Iterable[DumpCheck] = DumpCheck) -> list[Finding]:
    """Run `checks` on `dump` against its record. Never raises for what is wrong with the backup: that is the result."""
    figures: Figures = {"file": dump.name}
    try:
        record = load_record(dump)
    except RecordUnusable as error:
        return [Finding(check=c, status=Status.UNHEALTHY, detail=str(error), figures=figures) for c in checks]
    except (RecordTooNew, OSError) as error:
        return [Finding(check=c, status=Status.UNKNOWN, detail=str(error), figures=figures) for c in checks]
    return [prove(dump, record, binaries, check) for check in checks]


def verify_newest(
    directory: Path, checks: Iterable[DumpCheck] = DumpCheck, say: Callable[[str], None] = lambda _: None
) -> list[Finding]:
    """Run `checks` on the newest backup of each database in `directory`; `say` is told which begins.

    None at all is unhealthy, a directory out of reach unknown.
    """
    try:
        backups = newest_backups(directory)
        binaries = find_binaries()
    except (OSError, BinariesNotFound) as error:
        return [Finding(check=c, status=Status.UNKNOWN, detail=str(error)) for c in checks]
    if not backups:
        detail = f"there is no backup in {directory}: take one with `depot-ops backup logical`"
        return [Finding(check=c, status=Status.UNHEALTHY, detail=detail) for c in checks]
    chosen = list(checks)
    findings = []
    for backup in backups:
        say(f"reading {backup.name}")
        findings += verify(backup, binaries, chosen)
    return findings


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file's bytes in hex; of a directory, that of the lines that sha256sum prints for its files."""
    if path.is_dir():
        lines = "".join(f"{digest}  {name}\n" for name, digest in sha256_of_files(path).items())
        return sha256(lines.encode()).hexdigest()
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def sha256_of_files(dump: Path) -> dict[str, str]:
    """The SHA-256 of each file of a directory, in the order of their names; none of a file."""
    return {file.name: sha256_of(file) for file in sorted(dump.iterdir())} if dump.is_dir() else {}


def read_toc(dump: Path, binaries: Binaries) -> dict[str, int]:
    """Entries in the dump's table of contents, by kind. Raises ToolFailed."""
    command = [str(binaries.path("pg_restore")), "--list", str(dump)]
    with running(command, client_environment(), stdout=subprocess.PIPE) as restore:
        lines = _output(restore)
        entries = Counter(match[1].decode() for line in lines if (match := _TOC_ENTRY.match(line)))
    return dict(sorted(entries.items()))


def read_row_counts(dump: Path, binaries: Binaries) -> dict[str, int]:
    """Rows in the dump by `schema.table`, counted while the data streams by. Raises ToolFailed."""
    command = [str(binaries.path("pg_restore")), "--data-only", "--file=-", str(dump)]
    with running(command, client_environment(), stdout=subprocess.PIPE) as restore:
        return _count_copied_rows(_output(restore))


def _count_copied_rows(script: IO[bytes]) -> dict[str, int]:
    # COPY escapes line breaks inside values, so that a line is a row and a lone \. is the end.
    rows: dict[str, int] = {}
    table: str | None = None
    complete = True
    while piece := script.readline(LINE_PIECE_BYTES):
        at_start, complete = complete, piece.endswith(b"\n")
        if table is not None and at_start and piece == b"\\.\n":
            table = None
        elif table is not None:
            rows[table] += complete
        elif match := _COPY.fullmatch(piece):
            table = f"{_unquoted(match[1])}.{_unquoted(match[2])}"
            rows[table] = 0
    return rows


def _unquoted(identifier: bytes) -> str:
    name = identifier.decode(errors="backslashreplace")  # a damaged dump can hold anything
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _difference(what: str, expected: dict[str, int], seen: dict[str, int]) -> str | None:
    if expected == seen:
        return None
    names = sorted(name for name in expected.keys() | seen.keys() if expected.get(name) != seen.get(name))
    shown = "; ".join(
        f"{name}: {seen.get(name, 'none')} instead of {expected.get(name, 'none')}" for name in names[:10]
    )
    more = f"; and {len(names) - 10} more" if len(names) > 10 else ""  # noqa: PLR2004
    return f"{what} differ: {shown}{more}"


def _finding(check: DumpCheck, problem: str | None, healthy: str, figures: Figures) -> Finding:
    status = Status.UNHEALTHY if problem else Status.HEALTHY
    return Finding(check=check, status=status, detail=problem or healthy, figures=figures)
