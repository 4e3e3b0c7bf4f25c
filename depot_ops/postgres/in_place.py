"""The real disaster: a restored cluster takes the place of the one that was there, which is kept aside.

The old server is stopped before anything else, so that nothing is written that the restore would lose without a word.
Its directory keeps its place until the new one is complete. Killed anywhere, it is run again.
"""

import errno
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from depot_ops.durable import fsync
from depot_ops.exclusive import exclusively
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import ToolFailed, client_environment
from depot_ops.postgres.recovery import RestoreReport, require_parent, restore
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, Target
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.names import history_name, parse_wal_name

# What a rename onto a directory that is not empty fails with, and only then: whatever else forbids it comes first.
ONLY_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR)


class ServerStatus(IntEnum):
    """What `pg_ctl status` exits with."""

    RUNNING = 0
    STOPPED = 3
    NO_DATA_DIRECTORY = 4


class InPlaceReport(RestoreReport):
    """What was restored, and where that lies which was there before."""

    set_aside: str | None


def restore_in_place(
    data: Path,
    backup_dir: Path,
    archive_root: Path,
    binaries: Binaries,
    account: ServerAccount,
    target: Target,
    *,
    force: bool,
    restored: Callable[[RestoreReport], None] = lambda _: None,
    **options: Any,
) -> InPlaceReport:
    """Recover the cluster to `target` into `data`, as the primary that it was: archiving stays as the backup has it.

    Refuses a directory that is not empty, and all the more a running server, unless `force`. `restored` is told of what
    takes its place in the next moment. Raises RestoreError; what was there is then still there, stopped.
    """
    data = data.absolute()
    require_parent(data)
    refusal = RestoreRefused(f"another restore into {data} is running: wait until it has ended")
    try:
        # Of two at once, the later would remove what the other one has restored and not yet put in its place.
        with exclusively(data.with_name(f".{data.name}.restoring"), refusal):
            _make_way(data, binaries, account, force=force)
            fresh = _fresh(data)
            report = restore(fresh, backup_dir, archive_root, binaries, account, target, keeps_ties=True, **options)
            report = report.model_copy(update={"directory": str(data)})
            aside = _take_place(fresh, data, account, report, restored)
            _hand_on_history(data, archive_root, report)
    except OSError as error:
        raise RestoreError(f"{data} cannot be replaced, so nothing was restored: {error}") from error
    return InPlaceReport.model_validate({**report.model_dump(), "set_aside": str(aside) if aside else None})


def _fresh(data: Path) -> Path:
    return data.with_name(f".restored-{data.name}")


def _make_way(data: Path, binaries: Binaries, account: ServerAccount, *, force: bool) -> None:
    """The server stopped, and nothing left of a run that was killed before it could swap."""
    if data.is_dir() and any(data.iterdir()) and not force:
        raise RestoreRefused(
            f"{data} is not empty{_running_note(data, binaries, account)}. With --force the server there is stopped,"
            " and the directory is kept aside under another name"
        )
    try:
        shutil.rmtree(_fresh(data), ignore_errors=True)
        if data.exists():
            _check_can_be_moved(data, _fresh(data))
        _stop(data, binaries, account)
    except ToolFailed as error:
        raise RestoreError(f"{data} cannot be replaced, so nothing was restored: {error}") from error


def _take_place(
    fresh: Path, data: Path, account: ServerAccount, report: RestoreReport, restored: Callable[[RestoreReport], None]
) -> Path | None:
    try:
        _mark_history(fresh, account, report)
        restored(report)
        return _swap(fresh, data)
    except OSError as error:
        raise RestoreError(
            f"the restored cluster could not take its place, and lies in {fresh}: {error}. What was in {data} is there"
        ) from error


def _hand_on_history(data: Path, archive_root: Path, report: RestoreReport) -> None:
    try:
        _archive_history(data, archive_root, report)
        (data / _mark_of(report)).unlink()
    except (ArchiveError, BadWalFile, OSError) as error:
        raise RestoreError(
            f"{data} is restored and complete. Only its history is not in the archive: the server brings it there when"
            f" it is started with archiving on. {error}"
        ) from error


def _running_note(data: Path, binaries: Binaries, account: ServerAccount) -> str:
    return " and its server is running" if server_status(data, binaries, account) is ServerStatus.RUNNING else ""


def server_status(data: Path, binaries: Binaries, account: ServerAccount) -> ServerStatus:
    """Whether a server runs on `data`. Raises RestoreError when nobody can tell, ToolFailed."""
    done = _pg_ctl(["status"], data, binaries, account)
    try:
        return ServerStatus(done.returncode)
    except ValueError:
        raise RestoreError(f"whether a server runs on {data} cannot be told: {done.stderr.strip()}") from None


def _stop(data: Path, binaries: Binaries, account: ServerAccount) -> None:
    if not data.is_dir() or server_status(data, binaries, account) is not ServerStatus.RUNNING:
        return
    done = _pg_ctl(["stop", "--mode=fast", "--wait"], data, binaries, account)
    if done.returncode != 0:
        raise RestoreError(f"the server on {data} does not stop, so nothing was restored: {done.stderr.strip()}")


def _pg_ctl(
    arguments: list[str], data: Path, binaries: Binaries, account: ServerAccount
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [binaries.path("pg_ctl"), *arguments, f"--pgdata={data}"],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            env=client_environment(),
            **account.process_owner(),
        )
    except OSError as error:
        raise ToolFailed(f"pg_ctl cannot be run: {error}") from error


def _check_can_be_moved(data: Path, fresh: Path) -> None:
    """A mount point, for one, cannot be set aside: that is told now, and not after hours. Moves nothing."""
    fresh.mkdir(mode=0o700)
    try:
        (fresh / "occupied").touch()
        data.rename(fresh)
    except OSError as error:
        if error.errno not in ONLY_OCCUPIED:
            raise RestoreRefused(
                f"{data} cannot be set aside: {error.strerror}. If it is a mount point, restore --in-place into a"
                " directory below it, and start the server from there"
            ) from error
    else:
        fresh.rename(data)  # a file system that replaces what is not empty
    finally:
        if data.exists():
            shutil.rmtree(fresh, ignore_errors=True)


def _mark_of(report: RestoreReport) -> Path:
    return Path("pg_wal", "archive_status", f"{history_name(report.new_timeline)}.ready")


def _mark_history(fresh: Path, account: ServerAccount, report: RestoreReport) -> None:
    """Killed right after the swap, nobody but the server itself is left to archive the new timeline's history."""
    mark = fresh / _mark_of(report)
    mark.touch(mode=0o600)
    account.own(mark)
    fsync(mark.parent)


def _swap(fresh: Path, data: Path) -> Path | None:
    aside = _set_aside(data)
    try:
        fresh.rename(data)
    except OSError:
        if aside is not None:
            aside.rename(data)
        raise
    fsync(data.parent)
    return aside


def _set_aside(data: Path) -> Path | None:
    if not data.exists():
        return None
    aside = data.with_name(f"{data.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    data.rename(aside)
    return aside


def _archive_history(data: Path, archive_root: Path, report: RestoreReport) -> None:
    """The recovery ran without archiving, and later recoveries find their way along the new timeline by this file.

    Not before the new one has taken its place: until then no recovery must follow a timeline that may never begin.
    """
    name = parse_wal_name(history_name(report.new_timeline))
    assert name is not None
    WalArchive(archive_root, report.system_identifier).store(name, (data / "pg_wal" / name.name).read_bytes())
