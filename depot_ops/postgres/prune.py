"""Deleting what a plan lets go: dumps, chains of base backups and archived log.

Nothing goes while a backup is being taken, nor before every backup that is kept, and so stands for what goes, has been
read and hashed again. What goes is first renamed out of every reader's sight; a killed run is finished by the next.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict

from depot_ops.durable import fsync
from depot_ops.evidence import Status, worst
from depot_ops.postgres import base_backup, dump
from depot_ops.postgres.base_backup import BaseBackupRunning, check_chain, damage_of
from depot_ops.postgres.base_record import (
    BackupsBeingRead,
    BaseRecordUnusable,
    base_directory,
    find_base_backups,
    load_base_backup,
    nobody_reads,
)
from depot_ops.postgres.drill_facts import read_drill_facts
from depot_ops.postgres.dump import BackupRunning
from depot_ops.postgres.dump_checks import sha256_of
from depot_ops.postgres.dump_record import (
    TRASH_PREFIX,
    RecordTooNew,
    RecordUnusable,
    find_backups,
    glance,
    load_record,
    record_path,
    remove,
    stored_bytes,
    trash_path,
)
from depot_ops.postgres.retention import (
    Action,
    BaseElement,
    Decision,
    Dump,
    KeepPolicy,
    Kind,
    WalFile,
    plan_chains,
    plan_dumps,
    plan_wal,
)
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive
from depot_ops.postgres.wal.inventory import segment_size
from depot_ops.postgres.wal.names import WalKind, parse_lsn, parse_wal_name
from depot_ops.settings import RetentionSettings

JOURNAL_NAME = "retention.jsonl"
LONG_AGO = datetime.min.replace(tzinfo=UTC)

Backup = TypeVar("Backup", Dump, BaseElement)


class PruneError(Exception):
    """Nothing, or not all that should, was deleted; the message says why and what to do."""


class Pruned(BaseModel):
    """What was decided on everything that is kept, and what is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    dry_run: bool
    started_at: AwareDatetime
    finished_at: AwareDatetime
    decisions: tuple[Decision, ...]

    @property
    def deleted(self) -> list[Decision]:
        return [decision for decision in self.decisions if decision.action is Action.DELETE]

    @property
    def freed_bytes(self) -> int:
        return sum(decision.size_bytes for decision in self.deleted)


@dataclass(frozen=True, slots=True)
class Retention:
    """Where backups and the log lie, and how long each is kept."""

    backup_dir: Path
    archive_root: Path | None
    dumps: KeepPolicy
    chains: KeepPolicy


def prune(retention: Retention, *, dry_run: bool = False, say: Callable[[str], None] = lambda _: None) -> Pruned:
    """Plan, and unless `dry_run` delete what the plan lets go. Safe to be killed, and to be run again.

    Raises PruneError; nothing is touched while a backup is being taken, or a restore reads one.
    """
    started_at = datetime.now(UTC)
    try:
        if not retention.backup_dir.is_dir():
            raise PruneError(f"{retention.backup_dir} is not there: mount its disk, or take a backup first")
        with ExitStack() as locks:
            if not dry_run:
                _take_locks(retention.backup_dir, locks)
                _empty_trash(retention.backup_dir)
            say("planning, and reading the backups that stand for what goes")
            decisions = _plan(retention)
            pruned = Pruned(
                dry_run=dry_run, started_at=started_at, finished_at=datetime.now(UTC), decisions=tuple(decisions)
            )
            if pruned.deleted and not dry_run:
                write_down(retention.backup_dir / JOURNAL_NAME, pruned)
                for decision in pruned.deleted:
                    say(f"deleting {decision.name}")
                    _delete(retention, decision)
    except (BackupRunning, BaseBackupRunning, BackupsBeingRead) as error:
        raise PruneError(f"nothing was deleted: {error}") from None
    except (ArchiveError, OSError) as error:
        raise PruneError(f"not all was looked at or deleted: {error}. What is left is done by the next run") from error
    return pruned.model_copy(update={"finished_at": datetime.now(UTC)})


def configured(settings: RetentionSettings) -> Retention:
    """The retention that the environment asks for."""
    dumps = KeepPolicy(
        minutes=settings.backup_keep_mins,
        days=settings.backup_keep_days,
        weeks=settings.backup_keep_weeks,
        months=settings.backup_keep_months,
        minimum=settings.backup_keep_minimum,
        zone=ZoneInfo(settings.maintenance_timezone),
    )
    # The log is kept without a gap from the oldest chain on: months of chains would be months of log.
    chains = dumps.model_copy(update={"minutes": 0, "days": settings.base_keep_days, "weeks": 0, "months": 0})
    return Retention(settings.backup_dir, settings.wal_archive_dir, dumps, chains)


def _take_locks(backup_dir: Path, locks: ExitStack) -> None:
    locks.enter_context(dump.sole_writer(backup_dir))
    if (backup_dir / "base").is_dir():
        locks.enter_context(nobody_reads(backup_dir))
    for directory in _cluster_directories(backup_dir):
        locks.enter_context(base_backup.sole_writer(directory))


def _cluster_directories(backup_dir: Path) -> list[Path]:
    return sorted(path for path in (backup_dir / "base").glob("*") if path.name.isdecimal() and path.is_dir())


def _plan(retention: Retention) -> list[Decision]:
    decisions = _plan_dumps(retention)
    facts = read_drill_facts(retention.backup_dir)
    for directory in _cluster_directories(retention.backup_dir):
        system = int(directory.name)
        elements, chains = _plan_chains(retention, system)
        log = plan_wal(_archived(retention.archive_root, system), elements, chains, facts)
        decisions += [decision.model_copy(update={"system_identifier": system}) for decision in (*chains, *log)]
    return decisions


def plan_what_was_read(
    backups: list[Backup],
    plan: Callable[[list[Backup]], list[Decision]],
    damage: Callable[[str], str | None],
    counts: Callable[[Decision], bool] = lambda decision: decision.action is Action.KEEP,
) -> tuple[list[Backup], list[Decision]]:
    """Plan, and let go only what still goes when everything that counts for it was read: `damage` says what is wrong.

    What is kept and damaged stands for nothing: then something older counts in its place, and is read as well.
    """
    read: set[str] = set()
    while True:
        decisions = plan(backups)
        counted = {name for decision in decisions if counts(decision) for name in decision.members} - read
        unread = [one for one in backups if one.name in counted and one.status is Status.HEALTHY]
        if not unread or not any(decision.action is Action.DELETE for decision in decisions):
            return backups, decisions
        damaged = {one.name: problem for one in unread if (problem := damage(one.name))}
        read |= counted
        backups = [
            replace(one, status=Status.UNHEALTHY, detail=damaged[one.name]) if one.name in damaged else one
            for one in backups
        ]


def _plan_dumps(retention: Retention) -> list[Decision]:
    dumps = [_look_at_dump(path) for path in find_backups(retention.backup_dir)]
    _, decisions = plan_what_was_read(
        dumps,
        lambda dumps: plan_dumps(dumps, retention.dumps),
        lambda name: _damage_of_dump(retention.backup_dir / name),
    )
    return decisions


def _look_at_dump(path: Path) -> Dump:
    seen = glance(path)
    try:
        record = load_record(path)
    except (RecordUnusable, RecordTooNew, OSError):
        return Dump(path.name, "", LONG_AGO, _size(path), seen.status, seen.detail)
    status, detail = seen.status, seen.detail
    if status is Status.HEALTHY and worst(record.validation) is not Status.HEALTHY:
        status, detail = Status.UNHEALTHY, "its record does not say that it passed its checks"
    return Dump(path.name, record.database, record.started_at, _size(path), status, detail)


def _damage_of_dump(path: Path) -> str | None:
    return None if sha256_of(path) == load_record(path).sha256 else "it has not the SHA-256 it was written with"


def _plan_chains(retention: Retention, system: int) -> tuple[list[BaseElement], list[Decision]]:
    directory = base_directory(retention.backup_dir, system)
    return plan_what_was_read(
        [_look_at_base(path) for path in find_base_backups(retention.backup_dir, system)],
        lambda elements: plan_chains(elements, retention.chains),
        lambda label: damage_of(load_base_backup(directory / label)),
    )


def _look_at_base(path: Path) -> BaseElement:
    seen = check_chain(path)
    size_bytes = sum(file.stat().st_size for file in path.iterdir())
    try:
        record = load_base_backup(path).record
    except BaseRecordUnusable as error:
        return BaseElement(path.name, None, LONG_AGO, 0, size_bytes, seen.status, str(error))
    number = parse_lsn(record.start_lsn) // record.segment_size_bytes
    detail = "" if seen.status is Status.HEALTHY else seen.detail
    return BaseElement(path.name, record.parent, record.finished_at, number, size_bytes, seen.status, detail)


def _archived(root: Path | None, system: int) -> list[WalFile]:
    if root is None:
        return []
    archive = WalArchive(root, system)
    names = [name for name in archive.names() if name.kind is not WalKind.HISTORY] if archive.directory.is_dir() else []
    size_bytes = segment_size(archive, names)
    return [WalFile(name, name.segment_number(size_bytes), _size(archive.file_path(name))) for name in names]


def _size(path: Path) -> int:
    try:
        return stored_bytes(path)
    except FileNotFoundError:
        return 0


def write_down(path: Path, pruned: Pruned) -> None:
    """One line for each run that deletes, before it does: what it deletes and why."""
    line = pruned.model_copy(update={"decisions": tuple(pruned.deleted)}).model_dump_json() + "\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "w") as journal:
        journal.write(line)
        journal.flush()
        os.fsync(journal.fileno())
    fsync(path.parent)


def _delete(retention: Retention, decision: Decision) -> None:
    if decision.kind is Kind.DUMP:
        _delete_dump(retention.backup_dir / decision.name)
        return
    assert decision.system_identifier is not None
    if decision.kind is Kind.BASE_CHAIN:
        directory = base_directory(retention.backup_dir, decision.system_identifier)
        _delete_chain([directory / label for label in decision.members])
        return
    assert retention.archive_root is not None
    _delete_log(WalArchive(retention.archive_root, decision.system_identifier), decision.members)


def _delete_dump(path: Path) -> None:
    path.rename(trash_path(path))
    fsync(path.parent)
    _delete_trashed_dump(path)


def _delete_trashed_dump(path: Path) -> None:
    # The trash goes last: as long as it is there, the record that may be left is known for what it is.
    record_path(path).unlink(missing_ok=True)
    fsync(path.parent)
    remove(trash_path(path))


def _delete_chain(paths: list[Path]) -> None:
    # From the newest on: what is left when this is killed is a whole chain, only shorter.
    for path in reversed(paths):
        path.rename(trash_path(path))
        fsync(path.parent)
    for path in paths:
        shutil.rmtree(trash_path(path))


def _delete_log(archive: WalArchive, members: Iterable[str]) -> None:
    # The record first and the oldest first: what is left has no gap, and a file without its record goes next time.
    for name in filter(None, map(parse_wal_name, members)):
        archive.record_path(name).unlink(missing_ok=True)
        archive.file_path(name).unlink(missing_ok=True)


def _empty_trash(backup_dir: Path) -> None:
    # Called under the locks only: whoever put it there is dead.
    for trash in backup_dir.glob(f"{TRASH_PREFIX}*"):
        _delete_trashed_dump(trash.with_name(trash.name.removeprefix(TRASH_PREFIX)))
    for directory in _cluster_directories(backup_dir):
        for trash in directory.glob(f"{TRASH_PREFIX}*"):
            shutil.rmtree(trash)
