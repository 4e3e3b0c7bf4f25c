"""Running a drill: never two at once, nothing of it left behind but its evidence, whatever happens."""

from datetime import UTC, datetime

import psycopg

from depot_ops.copies.copying import CopyError
from depot_ops.drills.base import drill_base
from depot_ops.drills.canary import CanaryLost
from depot_ops.drills.logical import drill_logical
from depot_ops.drills.record import DrillKind, DrillRecord, DrillResult, begin, close_killed, publish
from depot_ops.drills.site import Site, sole_workspace
from depot_ops.evidence import Status
from depot_ops.places import PlaceError
from depot_ops.postgres.base_record import BaseRecordUnusable
from depot_ops.postgres.binaries import BinariesNotFound
from depot_ops.postgres.client_tools import BadAddress, ToolFailed
from depot_ops.postgres.cluster import ClusterError
from depot_ops.postgres.cluster_globals import GlobalsIncomplete
from depot_ops.postgres.dump_record import RecordTooNew, RecordUnusable
from depot_ops.postgres.recovery_plan import RestoreError
from depot_ops.postgres.wal.archive import ArchiveError

DRILLS = {DrillKind.BASE: drill_base, DrillKind.LOGICAL: drill_logical}
# What can be wrong with a backup, the archive or the machine: an answer, not a defect of ours.
STOPS = (
    *(CanaryLost, RestoreError, BaseRecordUnusable, RecordUnusable, RecordTooNew, ArchiveError, ClusterError),
    GlobalsIncomplete,
    *(ToolFailed, BinariesNotFound, BadAddress, CopyError, PlaceError, psycopg.Error, OSError),
)


def run_drill(kind: DrillKind, site: Site) -> DrillRecord:
    """Restore the newest backup, prove it, and leave the evidence. What goes wrong is in the record, not raised.

    Raises DrillRunning, and OSError when no evidence can be left.
    """
    record = begin(kind, site.binaries.version, str(site.copy) if site.copy else None)
    with sole_workspace(site) as workspace:
        close_killed(site.backup_dir)
        publish(record, site.backup_dir)
        try:
            DRILLS[kind](site, record, workspace)
            _judge(record)
        except STOPS as error:
            record.result, record.reason = DrillResult.FAILED, str(error).strip()
        except BaseException as error:
            record.result, record.reason = DrillResult.FAILED, f"it was broken off by {error!r}"
            raise
        finally:
            record.finished_at = datetime.now(UTC)
            publish(record, site.backup_dir)
    return record


def _judge(record: DrillRecord) -> None:
    failed = [finding for finding in record.findings if finding.status is not Status.HEALTHY]
    record.result = DrillResult.FAILED if failed else DrillResult.PASSED
    record.reason = "; ".join(f"{finding.check}: {finding.detail}" for finding in failed) or "all was proved"
