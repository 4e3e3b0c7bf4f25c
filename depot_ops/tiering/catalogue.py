"""What refers to each content, in the order of hashes, read a page at a time.

Pages and not one long cursor: a snapshot that is held for as long as a bucket is listed keeps every table from being
vacuumed. Within a page rows are streamed, so that content with a million references costs no memory either.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, LiteralString

import psycopg

from depot_ops.blobs.records import CatalogueUnreachable
from depot_ops.postgres.client_tools import BadAddress, parse_address
from depot_ops.tiering.policy import BranchState, Policy, Reference, Verdict

PAGE_BLOBS = 5_000
STREAMED_ROWS = 1_000
# Every step is a lookup by an index, whatever the statistics say of a table that has just been filled.
_OPTIONS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off -c statement_timeout=0"

# A version is superseded when no branch sees it as its newest: on each branch that inherits from its own up to some
# changelist, a newer row of its path comes before that. A branch that hides it behind a change of its own is not asked
# for that, and keeps it warm. Shelved work counts as current; uploads that nothing refers to are the collector's.
_PAGE: LiteralString = """
    WITH page AS MATERIALIZED (
        SELECT sha256, stored_bytes FROM blobs WHERE removed_at IS NULL AND sha256 > %(after)s
        ORDER BY sha256 LIMIT %(rows)s),
    released AS MATERIALIZED (SELECT DISTINCT branch_id FROM labels)
    SELECT encode(p.sha256, 'hex'), p.stored_bytes, r.* FROM page p LEFT JOIN LATERAL (
        SELECT j.name, b.name, j.status = 'archived', b.id IN (SELECT branch_id FROM released), a.asset_type, a.path,
            v.created_at, NOT EXISTS (
                SELECT FROM branch_lineage l
                WHERE l.ancestor_id = v.branch_id AND l.upto_no >= v.changelist_no AND NOT EXISTS (
                    SELECT FROM branch_heads h WHERE h.branch_id = v.branch_id AND h.path_key = a.path_key
                        AND h.from_no > v.changelist_no AND h.from_no <= l.upto_no))
        FROM asset_versions v JOIN assets a ON a.id = v.asset_id JOIN branches b ON b.id = v.branch_id
        JOIN projects j ON j.id = v.project_id
        WHERE v.sha256 = p.sha256 AND NOT EXISTS (
            SELECT FROM obliterated_versions t JOIN obliterations o ON o.id = t.obliteration_id
            WHERE t.asset_id = v.asset_id AND t.number = v.number AND o.status = 'completed')
        UNION ALL
        SELECT j.name, b.name, j.status = 'archived', b.id IN (SELECT branch_id FROM released),
            coalesce(a.asset_type, ''), i.path, s.created_at, false
        FROM shelf_items i JOIN shelves s ON s.id = i.shelf_id JOIN branches b ON b.id = s.branch_id
        JOIN projects j ON j.id = i.project_id
        LEFT JOIN assets a ON a.project_id = i.project_id AND a.path_key = i.path_key
        WHERE i.sha256 = p.sha256
    ) r ON true ORDER BY p.sha256
"""
_STATES = {
    (archived, released): frozenset(
        state for state, holds in ((BranchState.ARCHIVED, archived), (BranchState.RELEASED, released)) if holds
    )
    or frozenset({BranchState.ACTIVE})
    for archived in (False, True)
    for released in (False, True)
}


@dataclass(frozen=True, slots=True)
class Judged:
    """Some content, and what the policy says of it: nothing, when it stays where it is."""

    sha256: str
    stored_bytes: int
    verdict: Verdict | None


class Catalogue:
    """The depot's catalogue, read past row-level security."""

    def __init__(self, connection: psycopg.Connection[Any], page_blobs: int) -> None:
        self._connection = connection
        self._page_blobs = page_blobs

    def judged(self, policy: Policy, now: datetime) -> Iterator[Judged]:
        """All content, in the order of hashes."""
        after = b""
        while True:
            blobs = 0
            rows = self._rows(after)
            for (sha256, stored_bytes), group in groupby(rows, key=itemgetter(0, 1)):
                references = (_reference(row) for row in group if row[2] is not None)
                yield Judged(sha256, stored_bytes, policy.judge(references, stored_bytes, now))
                after = bytes.fromhex(sha256)
                blobs += 1
            if blobs < self._page_blobs:
                return

    def _rows(self, after: bytes) -> Iterator[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            yield from cursor.stream(_PAGE, {"after": after, "rows": self._page_blobs}, size=STREAMED_ROWS)


def _reference(row: tuple[Any, ...]) -> Reference:
    _, _, project, branch, archived, released, asset_type, path, referenced_at, superseded = row
    return Reference(project, branch, _STATES[archived, released], asset_type, path, referenced_at, superseded)


@contextmanager
def open_catalogue(url: str, page_blobs: int = PAGE_BLOBS) -> Iterator[Catalogue]:
    """Raises CatalogueUnreachable, also when the connection fails later."""
    try:
        parse_address(url)
        with psycopg.connect(url, autocommit=True, options=_OPTIONS) as connection:
            yield Catalogue(connection, page_blobs)
    except (BadAddress, psycopg.Error) as error:
        raise CatalogueUnreachable(f"The depot's catalogue cannot be read: {str(error).strip()}") from error
