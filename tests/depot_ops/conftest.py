"""Backups of months, to copy to a second place."""

import gzip
import hashlib
import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from depot_ops.drills.record import DrillKind, DrillRecord, DrillResult
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.base_record import BaseBackupKind, BaseBackupRecord, base_directory
from depot_ops.postgres.dump_record import NAME_FORMAT, BackupRecord, record_path
from depot_ops.postgres.prune import Retention
from depot_ops.postgres.retention import KeepPolicy
from depot_ops.postgres.wal.archive import WalArchive, WalRecord
from depot_ops.postgres.wal.names import format_lsn, parse_wal_name, segment_name
from tests.object_storage import Endpoint

SYSTEM = 7_000_000_000_000_000_001
SEGMENT_BYTES = 16 << 20


class Estate:
    """A backup directory and an archive to fill."""

    def __init__(self, home: Path) -> None:
        self.backup_dir = home / "backups"
        self.archive = WalArchive(home / "archive", SYSTEM)
        base_directory(self.backup_dir, SYSTEM).mkdir(parents=True)

    def retention(self, dumps: KeepPolicy | None = None, chains: KeepPolicy | None = None) -> Retention:
        return Retention(self.backup_dir, self.archive.root, dumps or KeepPolicy(), chains or KeepPolicy())

    def dump(self, moment: datetime, database: str = "depot", content: bytes = b"rows") -> Path:
        path = self.backup_dir / moment.strftime(NAME_FORMAT)
        path.write_bytes(content)
        record = BackupRecord(
            file=path.name,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            database=database,
            server_version="18.0",
            tool_version="18.0",
            started_at=moment,
            finished_at=moment + timedelta(seconds=9),
            duration_seconds=9,
            row_counts={},
            source_objects={},
            toc_entries={},
            validation=(Finding(check="checksum", status=Status.HEALTHY, detail="as written"),),
        )
        record_path(path).write_text(record.model_dump_json())
        return path

    def nights(self, count: int, start: datetime = datetime(2026, 1, 1, 1, tzinfo=UTC)) -> list[Path]:
        return [self.dump(start + timedelta(days=n)) for n in range(count)]

    def base(self, day: int, parent: Path | None = None) -> Path:
        moment = datetime(2026, 1, 1, 2, tzinfo=UTC) + timedelta(days=day)
        kind = BaseBackupKind.INCREMENTAL if parent else BaseBackupKind.FULL
        path = base_directory(self.backup_dir, SYSTEM) / f"{moment:%Y%m%dT%H%M%SZ}-{kind}"
        path.mkdir()
        archive, manifest = b"archive of " + path.name.encode(), b"manifest"
        (path / "base.tar.gz").write_bytes(archive)
        (path / "backup_manifest").write_bytes(manifest)
        number = 10 + day * 2
        record = BaseBackupRecord(
            label=path.name,
            kind=kind,
            parent=parent.name if parent else None,
            system_identifier=SYSTEM,
            timeline=1,
            start_lsn=format_lsn(number * SEGMENT_BYTES + 40),
            stop_lsn=format_lsn(number * SEGMENT_BYTES + 400),
            start_segment=segment_name(1, number),
            stop_segment=segment_name(1, number),
            segment_size_bytes=SEGMENT_BYTES,
            server_version="18.0",
            tool_version="18.0",
            superuser="postgres",
            data_checksums=True,
            started_at=moment,
            finished_at=moment,
            duration_seconds=1,
            verify_seconds=1,
            size_bytes=100,
            stored_size_bytes=len(archive),
            archive_sha256=hashlib.sha256(archive).hexdigest(),
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        )
        (path / "backup.json").write_text(record.sealed().model_dump_json())
        return path

    def weeks_of_chains(self, weeks: int) -> list[list[Path]]:
        """A full backup each week, and an incremental one each day."""
        chains = []
        for week in range(weeks):
            chain = [self.base(week * 7)]
            for day in range(1, 7):
                chain.append(self.base(week * 7 + day, chain[-1]))
            chains.append(chain)
        return chains

    def log(self, last: int) -> None:
        for number in range(last + 1):
            name = parse_wal_name(segment_name(1, number))
            assert name
            content = name.name.encode()
            path = self.archive.file_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content))
            sha256 = hashlib.sha256(content).hexdigest()
            size = path.stat().st_size
            record = WalRecord(name.name, SYSTEM, 1, sha256, SEGMENT_BYTES, size, "2026-01-01T00:00:00+00:00")
            self.archive.record_path(name).write_text(json.dumps(record._asdict()))

    def archived(self) -> list[int]:
        return [name.segment_number() for name in self.archive.names()]

    def drill(self, base: Path, result: str = "passed", from_place: str | None = None) -> Path:
        path = self.backup_dir / "drills" / f"{base.name}{'-copy' if from_place else ''}.json"
        path.parent.mkdir(exist_ok=True)
        moment = datetime(2026, 6, 1, tzinfo=UTC)
        record = DrillRecord(
            kind=DrillKind.BASE,
            label=path.stem,
            from_place=from_place,
            backup=base.name,
            result=DrillResult(result),
            started_at=moment,
            finished_at=moment,
            tool_version="18.0",
            replayed_to_lsn="0/5000000",
        )
        path.write_text(record.model_dump_json())
        return path

    def names(self) -> set[str]:
        """Everything that has a name a reader would see, and everything hidden but the locks."""
        found = {path.name for path in (*self.backup_dir.glob("*"), *self.backup_dir.glob("base/*/*"))}
        return found - {".lock", "base", "drills", "retention.jsonl"}


@pytest.fixture(scope="session")
def new_estate() -> type[Estate]:
    """For fixtures that live longer than one test."""
    return Estate


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)


class Bucket:
    """An empty bucket of an S3 server, and what somebody can do to it behind our back."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        self.url = f"s3://{name}/depot"

    def stored(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def flip_a_bit(self, key: str) -> None:
        stored = self.client.get_object(Bucket=self.name, Key=key)
        content = bytearray(stored["Body"].read())
        content[len(content) // 2] ^= 1
        self.client.put_object(Bucket=self.name, Key=key, Body=bytes(content), Metadata=stored["Metadata"])


@pytest.fixture
def bucket(moto_s3: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for variable, value in moto_s3.environment.items():
        monkeypatch.setenv(variable, value)
    name = f"depot-{secrets.token_hex(6)}"
    moto_s3.bucket(name)
    return Bucket(moto_s3.client(), name)
