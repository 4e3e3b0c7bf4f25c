"""The depot from nothing but its copies: the cluster from backups and log, the content from a copy, all proved."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.conninfo import make_conninfo
from pydantic import AwareDatetime, BaseModel, Field

from depot_ops.blobs.remote import Copies
from depot_ops.blobs.restore import RestoredBlobs, Source, affected_by, of_catalogue, restore_blobs
from depot_ops.blobs.scrub import EVIDENCE
from depot_ops.blobs.scrub_state import write_durably
from depot_ops.drills.proofs import UNHURRIED, catalogue_answers, catalogue_consistent
from depot_ops.evidence import Finding, Status, worst
from depot_ops.exclusive import exclusively
from depot_ops.places import Place
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.in_place import ServerStatus, restore_in_place, server_status
from depot_ops.postgres.recovery import CUT_TIES, RestoreReport, require_parent, serving
from depot_ops.postgres.recovery_plan import RestoreRefused, Target

RESTORED_SUFFIX = ".restored.json"


@dataclass(frozen=True)
class Left:
    """What is left of the depot."""

    backup_dir: Path
    archive_root: Path
    content: Copies
    spool: Path | None = None
    """Where finished log waited for the collector."""
    stream: Path | None = None
    """Where the log was received as it was written."""
    copy: Place | None = None
    """Where a copy of the backups and of the archive lies: then nothing of `backup_dir` and `archive_root` is read."""


@dataclass(frozen=True)
class Rebuild:
    """What is made of it."""

    data: Path
    """The data directory of the new primary."""
    store: Path
    database: str = "depot"
    system_identifier: int | None = None
    workers: int = 4


class DisasterReport(BaseModel):
    """The evidence of a depot that was rebuilt."""

    schema_version: Literal[1] = 1
    started_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    duration_seconds: float = 0.0
    cluster: RestoreReport
    content: RestoredBlobs
    findings: list[Finding]

    @property
    def status(self) -> Status:
        return worst(self.findings)


def rebuild_depot(
    left: Left, rebuild: Rebuild, binaries: Binaries, account: ServerAccount, say: Callable[[str], None]
) -> DisasterReport:
    """Restore cluster and content, and prove that every version can be had. Killed and run again, it goes on.

    Raises RestoreError, BlobRestoreError, CopyUnreachable, PlaceError, psycopg.Error and OSError; what was restored
    stays.
    """
    require_parent(rebuild.data)
    sources = left.content.sources()  # before hours of work: are they there?
    refusal = RestoreRefused(
        f"{rebuild.data} is being rebuilt already, or what a killed run had started ends just now: wait until it has"
    )
    with exclusively(rebuild.data.with_name(f".{rebuild.data.name}.rebuilding"), refusal) as lock:
        return _rebuild(left, rebuild, sources, binaries, account, lock, say)


def _rebuild(
    left: Left,
    rebuild: Rebuild,
    sources: list[Source],
    binaries: Binaries,
    account: ServerAccount,
    lock: int,
    say: Callable[[str], None],
) -> DisasterReport:
    started = time.monotonic()
    cluster = _restored_before(rebuild.data, binaries, account)
    cluster = cluster or _restore_cluster(left, rebuild, binaries, account, say)
    say(f"the cluster is back as of {cluster.ended_lsn}; reading which content it names")
    with _catalogue(rebuild, cluster, binaries, account, lock) as catalogue:
        content = restore_blobs(of_catalogue(catalogue), sources, rebuild.store, rebuild.workers)
        content.affected = affected_by(catalogue, content.lost)
        findings = [catalogue_answers(catalogue), catalogue_consistent(catalogue)]
    say("the content is back; copying the documents of refs/")
    left.content.restore_documents(rebuild.store, rebuild.workers, content)
    report = DisasterReport(cluster=cluster, content=content, findings=[*findings, content.finding()])
    report.duration_seconds = round(time.monotonic() - started, 3)
    (rebuild.store / EVIDENCE).mkdir(exist_ok=True)
    write_durably(rebuild.store / EVIDENCE / f"disaster-restore-{report.started_at:%Y%m%dT%H%M%S%fZ}.json", report)
    if report.status is Status.HEALTHY:
        _record_path(rebuild.data).unlink(missing_ok=True)
    return report


def _record_path(data: Path) -> Path:
    return data.with_name(data.name + RESTORED_SUFFIX)


def _restored_before(data: Path, binaries: Binaries, account: ServerAccount) -> RestoreReport | None:
    """What a run that did not come to its end has restored already. Its record is there before the cluster is."""
    record = _record_path(data)
    if not record.exists() or not data.is_dir() or not any(data.iterdir()):
        return None
    if server_status(data, binaries, account) is ServerStatus.RUNNING:
        raise RestoreRefused(f"a server runs on {data}: stop it, then run this again to restore the rest")
    return RestoreReport.model_validate_json(record.read_bytes())


def _restore_cluster(
    left: Left, rebuild: Rebuild, binaries: Binaries, account: ServerAccount, say: Callable[[str], None]
) -> RestoreReport:
    say(f"restoring the cluster into {rebuild.data}")
    restored = restore_in_place(
        rebuild.data,
        left.backup_dir,
        left.archive_root,
        binaries,
        account,
        Target(),
        force=False,
        restored=lambda report: write_durably(_record_path(rebuild.data), report),
        system_identifier=rebuild.system_identifier,
        copy=left.copy,
        spool=left.spool,
        stream=left.stream,
        say=say,
    )
    return RestoreReport.model_validate(restored.model_dump(exclude={"set_aside"}))


@contextmanager
def _catalogue(
    rebuild: Rebuild, cluster: RestoreReport, binaries: Binaries, account: ServerAccount, lock: int
) -> Iterator[psycopg.Connection[Any]]:
    """The restored catalogue, on a server that only we can reach, and that holds `lock` to its own end."""
    with tempfile.TemporaryDirectory(prefix="depot-restore-") as name:
        work = Path(name)
        account.own(work)
        with serving(rebuild.data, CUT_TIES, cluster.superuser, work, lock, binaries, account) as (server, _):
            address = make_conninfo(
                host=server.info.host,
                port=server.info.port,
                user=cluster.superuser,
                dbname=rebuild.database,
                options=UNHURRIED,
            )
            with psycopg.connect(address, autocommit=True) as catalogue:
                yield catalogue
