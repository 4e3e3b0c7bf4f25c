"""The real disaster: a restored cluster takes the place of the one that was there, which is kept aside.

The old server is stopped before anything else, so that nothing is written that the restore would lose without a word.
Its directory keeps its place until the new one is complete. Killed anywhere, it is run again.
"""

import shutil
import subprocess
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import ToolFailed, client_environment
from depot_ops.postgres.recovery import RestoreReport, restore
from depot_ops.postgres.recovery_plan import RestoreError, RestoreRefused, Target
from depot_ops.postgres.wal.archive import WalArchive, fsync
from depot_ops.postgres.wal.names import parse_wal_name


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
    **options: Any,
) -> InPlaceReport:
    """Recover the cluster to `target` into `data`, as the primary that it was: archiving stays as the backup has it.

    Refuses a directory that is not empty, and all the more a running server, unless `force`. Raises RestoreError; what
    was there is then still there, stopped.
    """
    data = data.absolute()
    if data.is_dir() and any(data.iterdir()) and not force:
        raise RestoreRefused(
            f"{data} is not empty{_running_note(data, binaries, account)}. With --force the server there is stopped,"
            " and the directory is kept aside under another name"
        )
    _stop(data, binaries, account)
    fresh = data.with_name(f".restored-{data.name}")
    shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed before it could swap
    report = restore(fresh, backup_dir, archive_root, binaries, account, target, keeps_ties=True, **options)
    _archive_history(fresh, archive_root, report)
    aside = _set_aside(data)
    fresh.rename(data)
    fsync(data.parent)
    told = report.model_dump() | {"directory": str(data), "set_aside": str(aside) if aside else None}
    return InPlaceReport.model_validate(told)


def _running_note(data: Path, binaries: Binaries, account: ServerAccount) -> str:
    return " and its server is running" if _status(data, binaries, account) is ServerStatus.RUNNING else ""


def _status(data: Path, binaries: Binaries, account: ServerAccount) -> ServerStatus:
    done = _pg_ctl(["status"], data, binaries, account)
    try:
        return ServerStatus(done.returncode)
    except ValueError:
        raise RestoreError(f"whether a server runs on {data} cannot be told: {done.stderr.strip()}") from None


def _stop(data: Path, binaries: Binaries, account: ServerAccount) -> None:
    if not data.is_dir() or _status(data, binaries, account) is not ServerStatus.RUNNING:
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


def _archive_history(fresh: Path, archive_root: Path, report: RestoreReport) -> None:
    """The recovery ran without archiving, and later recoveries find their way along the new timeline by this file."""
    name = parse_wal_name(f"{report.new_timeline:08X}.history")
    assert name is not None
    WalArchive(archive_root, report.system_identifier).store(name, (fresh / "pg_wal" / name.name).read_bytes())


def _set_aside(data: Path) -> Path | None:
    if not data.exists():
        return None
    aside = data.with_name(f"{data.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    data.rename(aside)
    return aside
