"""What the catalogue says of each object, read as the role that may read everything."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

import psycopg
from pydantic import BaseModel

from depot_api.blobstore.layout import StoredBlob
from depot_ops.postgres.client_tools import BadAddress, parse_address

_RECORDED: LiteralString = """
    SELECT encode(sha256, 'hex'), size_bytes, stored_bytes, stored_crc32, verified_at, evicted_at IS NOT NULL FROM blobs
    WHERE removed_at IS NULL AND """
_AFFECTED: LiteralString = """
    SELECT DISTINCT p.name, a.path, v.number FROM asset_versions v JOIN assets a ON a.id = v.asset_id
    JOIN projects p ON p.id = v.project_id WHERE v.sha256 = ANY (%s) ORDER BY 1, 2, 3 LIMIT %s
"""
HASH_BYTES = 32
NAMED = 1000


class CatalogueUnreachable(Exception):
    """The depot's database cannot be read; the message says why."""


class AffectedVersion(BaseModel):
    """A version that needs content which is lost or damaged."""

    project: str
    path: str
    version: int

    def __str__(self) -> str:
        return f"{self.project} {self.path}#{self.version}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An object that has to be there."""

    blob: StoredBlob
    written_at: datetime
    is_evicted: bool = False
    """It may be away from the store's own disk, and has to be in the other copies."""


class BlobRecords:
    """The records of all objects that have to be there, a two-digit prefix at a time."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def of_prefix(self, prefix: str) -> dict[str, Recorded]:
        first = bytes.fromhex(prefix)
        end = bytes([first[0] + 1]) if first[0] < 0xFF else b"\xff" * (HASH_BYTES + 1)  # noqa: PLR2004 - a byte's last
        return self._recorded(_RECORDED + "sha256 >= %s AND sha256 < %s", (first, end))

    def of(self, hashes: Sequence[str]) -> dict[str, Recorded]:
        """As they are now, of those that have not been removed for good since they were read."""
        if not hashes:
            return {}
        return self._recorded(_RECORDED + "sha256 = ANY (%s)", ([bytes.fromhex(sha256) for sha256 in hashes],))

    def affected(self, hashes: Sequence[str]) -> list[AffectedVersion]:
        """The versions with this content, the first of them."""
        if not hashes:
            return []
        rows = self._connection.execute(_AFFECTED, ([bytes.fromhex(sha256) for sha256 in hashes], NAMED))
        return [AffectedVersion(project=row[0], path=row[1], version=row[2]) for row in rows]

    def _recorded(self, query: LiteralString, parameters: Sequence[object]) -> dict[str, Recorded]:
        rows = self._connection.execute(query, parameters)
        return {row[0]: Recorded(StoredBlob(*row[:4]), row[4], row[5]) for row in rows}


@contextmanager
def open_records(url: str) -> Iterator[BlobRecords]:
    """Raises CatalogueUnreachable, also when the connection fails later."""
    try:
        parse_address(url)
        with psycopg.connect(url, autocommit=True) as connection:
            yield BlobRecords(connection)
    except (BadAddress, psycopg.Error) as error:
        raise CatalogueUnreachable(f"The depot's catalogue cannot be read: {str(error).strip()}") from error
