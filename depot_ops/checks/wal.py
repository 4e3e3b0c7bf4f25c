"""The archive of the log: does the log arrive, is it whole, and does nothing pile up before it?"""

from collections.abc import Callable

import dagster as dg

from depot_ops.assets.wal import wal_archive
from depot_ops.checks.result import check_result
from depot_ops.evidence import Finding, Status
from depot_ops.postgres.base_record import BaseRecordUnusable, oldest_needed_segment
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive, open_archive
from depot_ops.postgres.wal.inventory import check_continuity
from depot_ops.postgres.wal.progress import archive_of, check_backlog, check_freshness
from depot_ops.postgres.wal.stream import STREAM, check_stream
from depot_ops.settings import WalSettings, load

FRESHNESS = (
    "Forces the primary to finish a segment of its log and waits until it has arrived in the archive: an idle database"
    " is not stale, and a dead archiver is. When this is red, everything since the last arrival would be lost with the"
    " primary: look at the collector's output and at archiver_backlog."
)
CONTINUITY = (
    "The archive has every segment from the oldest base backup on, on each timeline. When this is red, the result names"
    " the missing segment: no recovery passes it. Look for it in the primary's pg_wal, then launch full_backup."
)
BACKLOG = (
    "Few and young segments wait in the primary's pg_wal to be archived. When this is red the archiver fails or is too"
    " slow; the primary's disk fills. The server's log says why."
)
STREAMED = (
    "A mark that is written at the primary is on the receiver's disk within seconds, where WAL_STREAM_DIR says that the"
    " log is streamed. When this is red a lost primary costs a segment instead of seconds: look at the output of"
    " `depot-ops wal receive`."
)


def _check(name: str, description: str, look: Callable[[WalSettings], Finding]) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=wal_archive.key, name=name, description=description, blocking=True, compute_kind="postgres")
    def check() -> dg.AssetCheckResult:
        try:
            finding = look(load(WalSettings))
        except (ArchiveError, BaseRecordUnusable, OSError) as error:
            finding = Finding(check=name, status=Status.UNKNOWN, detail=str(error))
        return check_result(finding)

    return check


def _freshness(settings: WalSettings) -> Finding:
    return check_freshness(_url(settings), _archive(settings))


def _archive(settings: WalSettings) -> WalArchive:
    return archive_of(_url(settings), settings.wal_archive_dir)


def _continuity(settings: WalSettings) -> Finding:
    archive = open_archive(settings.wal_archive_dir)
    return check_continuity(archive, oldest_needed_segment(settings.backup_dir, archive.system_identifier))


def _url(settings: WalSettings) -> str:
    return settings.depot_replication_url.get_secret_value()


def _stream(settings: WalSettings) -> Finding:
    if settings.wal_stream_dir is None:
        return Finding(check=STREAM, status=Status.HEALTHY, detail="WAL_STREAM_DIR is not set: nothing is streamed")
    return check_stream(_url(settings), settings.wal_stream_dir, _archive(settings))


wal_checks = [
    _check("wal_freshness", FRESHNESS, _freshness),
    _check("wal_continuity", CONTINUITY, _continuity),
    _check("wal_stream", STREAMED, _stream),
    _check("archiver_backlog", BACKLOG, lambda settings: check_backlog(_url(settings))),
]
