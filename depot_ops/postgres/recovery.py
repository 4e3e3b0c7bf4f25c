"""Recovering a cluster into a directory of its own: nothing of production is touched, and it says where it ended."""

import errno
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psycopg
from pydantic import AwareDatetime, BaseModel, ConfigDict

from depot_ops.durable import fsync
from depot_ops.parents import end_with
from depot_ops.places import Place, PlaceError
from depot_ops.postgres.accounts import ServerAccount
from depot_ops.postgres.base_backup import damage_of, extract, run_verifybackup
from depot_ops.postgres.base_record import BaseBackup
from depot_ops.postgres.binaries import Binaries
from depot_ops.postgres.client_tools import ToolFailed, client_environment, running
from depot_ops.postgres.cluster import MAX_SOCKET_DIRECTORY_BYTES
from depot_ops.postgres.recovery_plan import (
    RecoveryPlan,
    RestoreError,
    RestoreRefused,
    SourceIncomplete,
    Target,
    TargetKind,
    plans,
    told_missing,
)
from depot_ops.postgres.recovery_source import RecoverySource, SpooledArchive, open_copy
from depot_ops.postgres.wal.archive import ArchiveError, WalArchive, open_archive
from depot_ops.postgres.wal.content import BadWalFile
from depot_ops.postgres.wal.names import WalKind, WalName, format_lsn, parse_lsn
from depot_ops.postgres.wal.stream import Streamed, refused_end, stage_streamed, stops_short

WORKERS = 2
STAGING_NAME = "copy"
POLL_SECONDS = 0.05
STOP_TIMEOUT_SECONDS = 300.0
SOCKET_PORT = 5432  # names the socket in its private directory; nothing listens on it
SPARE_BYTES = 256 << 20
LOG_LINES = 5
TARGET_NOT_REACHED = "recovery ended before configured recovery target was reached"

# What a restored cluster must not carry on: it would write into production's archive, or wait for its standbys.
CUT_TIES = {
    "archive_mode": "off",
    "archive_command": "",
    "restore_command": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
}
# A server that only we can reach and that acts on nothing else, whatever the configuration that it comes with says.
PRIVATE = {
    "listen_addresses": "",
    "port": str(SOCKET_PORT),
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "ssl": "off",
    "autovacuum": "off",
    "external_pid_file": "",
    # Schedulers that are loaded would run their jobs, and subscriptions would take production's place at their source.
    "shared_preload_libraries": "",
    "max_logical_replication_workers": "0",
}
TARGET_SETTINGS = ("recovery_target", *(f"recovery_target_{kind}" for kind in ("name", "time", "xid", "lsn")))
_ENDED = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
"""


class TargetNotReached(RestoreError):
    """The log ended before the target."""


class RestoreReport(BaseModel):
    """What was restored, from what, and where it ended."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    directory: str
    target: str
    system_identifier: int
    superuser: str = "postgres"
    """Who may sign in over its private socket. Evidence from before this was recorded is not asked for it."""
    backups: tuple[str, ...]
    """The base backup and those that it builds on, the full one first."""
    left_out: tuple[str, ...] = ()
    """Newer base backups that cannot be used, and why."""
    recovered_timeline: int
    new_timeline: int
    segments: int
    spooled_segments: int = 0
    """Of them, those that still waited for the collector."""
    last_segment: str
    streamed_until: str | None = None
    """How far the stream went that was replayed behind the archive's end."""
    ended_lsn: str
    last_commit_at: AwareDatetime | None
    """Of the last transaction that was replayed; None when there was none after the backup."""
    verified: bool
    started_at: AwareDatetime
    fetch_seconds: float
    replay_seconds: float
    verify_seconds: float
    duration_seconds: float


def restore(
    to: Path,
    backup_dir: Path,
    archive_root: Path,
    binaries: Binaries,
    account: ServerAccount,
    target: Target = Target(),  # noqa: B008 - frozen
    *,
    system_identifier: int | None = None,
    timeline: int | None = None,
    base: str | None = None,
    copy: Place | None = None,
    verify: bool = False,
    keeps_ties: bool = False,
    stream: Path | None = None,
    spool: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """Recover the cluster to `target` into the new directory `to`. Raises RestoreError; `to` is then not there.

    Everything that is needed is proved to be there and intact before a server starts. `verify` reads every page. With
    `copy` it comes from there, and neither the backup directory nor the archive is looked at. `stream` is where
    pg_receivewal wrote: what it has behind the archive's end is replayed too, unless the target is a position. What
    waits in `spool` for the collector counts as archived, and stays there.
    `keeps_ties` is for what takes the old one's place: it goes on archiving as the backup's configuration says.
    `say` is told what begins.
    """
    to = to.absolute()
    _check_destination(to, account)
    not_reached: TargetNotReached | None = None
    try:
        with _workspace(to, account) as (work, lock):
            source = _open_source(backup_dir, archive_root, copy, work, system_identifier, spool, say)
            left_out: list[str] = []
            for plan in plans(
                source.backup_dir,
                source.archive,
                target,
                timeline=timeline,
                base=base,
                streamed=stream is not None and target.kind is not TargetKind.LSN,
                leave_out=left_out.append,
            ):
                try:
                    report = _restore(plan, source, work, lock, to, binaries, account, verify, keeps_ties, stream, say)
                    return report.model_copy(update={"left_out": tuple(left_out)})
                except TargetNotReached as error:
                    not_reached = not_reached or TargetNotReached(f"{error}{_other_timeline(plan)}")
                if target.kind is not TargetKind.NAME:  # only a name can lie before a newer backup
                    break
    except (ToolFailed, psycopg.Error) as error:
        raise RestoreError(str(error).strip()) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RestoreError(
            f"no room is left beside {to}" if full else f"the restore into {to} failed: {error}"
        ) from error
    assert not_reached is not None
    raise not_reached


def _other_timeline(plan: RecoveryPlan) -> str:
    if not plan.path.switches:
        return ""
    parent = plan.path.switches[-1]
    return (
        f", or --timeline {parent.timeline} for what it had behind {format_lsn(parent.position)}, where timeline"
        f" {plan.path.timeline} branched off"
    )


def _restore(
    plan: RecoveryPlan,
    source: RecoverySource,
    work: Path,
    lock: int,
    to: Path,
    binaries: Binaries,
    account: ServerAccount,
    verify: bool,
    keeps_ties: bool,
    stream: Path | None,
    say: Callable[[str], None],
) -> RestoreReport:
    started_at, started = datetime.now(UTC), time.monotonic()
    _check_version(plan, binaries)
    _check_room(plan, work, source)
    _empty(work, source)
    staged, data = work / "wal", work / "data"
    say(f"fetching {' + '.join(element.record.label for element in plan.chain)} and {len(plan.segments)} segments")
    with source.kept():
        _bring(plan, source)
        _stage(plan, source.archive, staged)
        streamed = _stage_streamed(plan, stream, source.archive, staged)
        _unpack(plan, work, data, binaries)
    _prepare(data)
    account.own_tree(work)
    fetched = time.monotonic()
    spooled_names = source.archive.taken if isinstance(source.archive, SpooledArchive) else set[str]()
    say(f"replaying the log to {plan.target}")
    settings, superuser = _recovery_settings(plan, staged), plan.base.record.superuser
    with serving(data, settings, superuser, work, lock, binaries, account) as (connection, log):
        in_recovery, ended, last_commit, new_timeline = _ended(connection)
        if in_recovery:
            raise RestoreError(f"the server is still in recovery: {_tail(log)}")
        _check_end(plan, ended)
        if streamed and plan.target.kind is TargetKind.LATEST and stops_short(streamed, parse_lsn(ended)):
            raise RestoreError(refused_end(streamed, ended))
    replayed = time.monotonic()
    if verify:
        say("checking every page")
        _verify(plan, data, binaries)
    verified = time.monotonic()
    if not keeps_ties:
        _cut_ties(data, account)
    data.rename(to)
    fsync(to.parent)
    return RestoreReport(
        directory=str(to),
        target=str(plan.target),
        system_identifier=source.archive.system_identifier,
        superuser=plan.base.record.superuser,
        backups=tuple(element.record.label for element in plan.chain),
        recovered_timeline=plan.path.timeline,
        new_timeline=new_timeline,
        segments=len(plan.segments),
        spooled_segments=len(spooled_names & {name.name for name in plan.segments}),
        last_segment=plan.segments[-1].name,
        streamed_until=format_lsn(streamed.until) if streamed else None,
        ended_lsn=ended,
        last_commit_at=last_commit,
        verified=verify,
        started_at=started_at,
        fetch_seconds=round(fetched - started, 3),
        replay_seconds=round(replayed - fetched, 3),
        verify_seconds=round(verified - replayed, 3),
        duration_seconds=round(time.monotonic() - started, 3),
    )


# Before a server starts ---------------------------------------------------------------------------------------------


def _open_source(
    backup_dir: Path,
    archive_root: Path,
    copy: Place | None,
    work: Path,
    system_identifier: int | None,
    spool: Path | None,
    say: Callable[[str], None],
) -> RecoverySource:
    try:
        if copy is None:
            source = RecoverySource(backup_dir, open_archive(archive_root, system_identifier))
        else:
            staging = work / STAGING_NAME
            shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
            source = open_copy(copy, staging, system_identifier)
    except (ArchiveError, PlaceError) as error:
        raise SourceIncomplete(str(error)) from error
    if spool is None:
        return source
    if not spool.is_dir():
        say(f"{spool} is not there: the log that waited in it for the collector, if any, is not restored")
        return source
    return replace(source, archive=SpooledArchive(source.archive, spool))


def _check_destination(to: Path, account: ServerAccount) -> None:
    if to.exists():
        raise RestoreRefused(f"{to} exists: a restore goes into a new directory only. Name another or move it away")
    require_parent(to)
    if not account.can_reach(to.parent):
        raise RestoreRefused(f"the account that runs PostgreSQL cannot enter {to.parent}: name another directory")


def require_parent(to: Path) -> None:
    """Raises RestoreRefused."""
    if not to.parent.is_dir():
        raise RestoreRefused(f"{to.parent} is no directory: make it first")


@contextmanager
def _workspace(to: Path, account: ServerAccount) -> Iterator[tuple[Path, int]]:
    """A private directory beside the final one, which is its own lock. A killed run's server holds it to its end."""
    work = to.with_name(f".partial-{to.name}")
    work.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(work, os.O_RDONLY)
    try:
        _take_lock(lock, work, to)
        account.own(work)
        try:
            yield work, lock
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _take_lock(lock: int, work: Path, to: Path) -> None:
    refusal = RestoreError(f"another restore into {to} is running, or a killed one ends just now: wait")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise refusal from None
    if not work.exists() or not os.path.samestat(work.stat(), os.fstat(lock)):
        raise refusal  # whoever held it has just removed it


def _check_version(plan: RecoveryPlan, binaries: Binaries) -> None:
    major = int(plan.base.record.server_version.split(".")[0])
    if major != binaries.major:
        raise RestoreRefused(
            f"the backup is of PostgreSQL {plan.base.record.server_version}, the programs in {binaries.bindir} are"
            f" {binaries.version}: set DEPOT_PG_BINDIR to PostgreSQL {major}"
        )


def _check_room(plan: RecoveryPlan, work: Path, source: RecoverySource) -> None:
    needed = plan.needed_bytes + source.staging_bytes(plan.chain) + SPARE_BYTES
    free = shutil.disk_usage(work).free
    if free < needed:
        raise RestoreRefused(f"{work.parent} has {free:,} free bytes, the restore needs {needed:,}: name a larger disk")


def _empty(work: Path, source: RecoverySource) -> None:
    for path in work.iterdir():
        if source.backup_dir.is_relative_to(path):
            continue  # what was fetched serves the next plan too
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _bring(plan: RecoveryPlan, source: RecoverySource) -> None:
    try:
        for backup in plan.chain:
            source.bring(backup)
    except PlaceError as error:
        raise SourceIncomplete(str(error)) from error


def _stage(plan: RecoveryPlan, archive: WalArchive, staged: Path) -> None:
    """Every segment, proved; and all histories, by which the server finds its way and a new timeline's number."""
    staged.mkdir(mode=0o700)
    own = plan.segments[:-1] if plan.inherited else plan.segments

    def stage(name: WalName) -> None:
        (staged / name.name).write_bytes(archive.fetch(name))

    try:
        histories = [name for name in archive.names() if name.kind is WalKind.HISTORY]
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(stage, [*histories, *own]))
        if plan.inherited:
            # As the server made it when the timeline began: what the ancestor wrote behind that is none of its log.
            content = archive.fetch(plan.inherited)[: plan.path.branch_position % plan.segment_size_bytes]
            (staged / plan.segments[-1].name).write_bytes(content.ljust(plan.segment_size_bytes, b"\0"))
    except ArchiveError as error:
        raise SourceIncomplete(str(error)) from error


def _stage_streamed(plan: RecoveryPlan, stream: Path | None, archive: WalArchive, staged: Path) -> Streamed | None:
    if stream is None or plan.target.kind is TargetKind.LSN:
        return None
    first = plan.first_segment_number + len(plan.segments) - (plan.inherited is not None)
    try:
        streamed = stage_streamed(stream, staged, plan.path, first, plan.segment_size_bytes, archive)
    except (BadWalFile, ArchiveError, OSError) as error:
        raise RestoreRefused(f"{stream} cannot be restored from: {error}. Leave out --stream") from error
    if lacking := [name for name in plan.left_to_stream if streamed is None or name not in streamed.names]:
        needed = [*(name.name for name in plan.segments), *plan.left_to_stream]
        raise SourceIncomplete(f"{told_missing(lacking, needed)}, and {stream} does not have them")
    return streamed


def _unpack(plan: RecoveryPlan, work: Path, data: Path, binaries: Binaries) -> None:
    """Unpack and verify every element: pg_combinebackup would merge a damaged one without a word."""
    if len(plan.chain) == 1:
        _unpack_element(plan.base, data, binaries)
        return
    elements = [work / element.record.label for element in plan.chain]
    for element, tree in zip(plan.chain, elements, strict=True):
        _unpack_element(element, tree, binaries)
    command = [str(binaries.path("pg_combinebackup")), *map(str, elements), f"--output={data}"]
    with running(command, client_environment()):
        pass
    run_verifybackup(data, binaries)
    for tree in elements:
        shutil.rmtree(tree)


def _unpack_element(backup: BaseBackup, tree: Path, binaries: Binaries) -> None:
    if damage := damage_of(backup):
        raise SourceIncomplete(damage)
    try:
        extract(backup.archive, tree)
        run_verifybackup(tree, binaries)
    except (ToolFailed, tarfile.TarError, EOFError) as error:
        raise SourceIncomplete(f"{backup.path} could not be unpacked: {error}") from error


def _prepare(data: Path) -> None:
    for name in ("standby.signal", "postmaster.pid", "postmaster.opts"):
        (data / name).unlink(missing_ok=True)
    # Where the configuration lies outside the data directory, the backup has none.
    for name in ("postgresql.conf", "postgresql.auto.conf", "pg_ident.conf"):
        (data / name).touch(mode=0o600)
    (data / "recovery.signal").touch(mode=0o600)


# The server ---------------------------------------------------------------------------------------------------------


@contextmanager
def serving(
    data: Path,
    settings: dict[str, str],
    superuser: str,
    work: Path,
    lock: int,
    binaries: Binaries,
    account: ServerAccount,
) -> Iterator[tuple[psycopg.Connection[Any], Path]]:
    """A server on `data` for nobody but us, and its log; shut down at the end of the block. Its files are in `work`.

    It holds `lock` until it has ended, also when we are killed. Raises RestoreError.
    """
    sockets = _socket_directory(work)
    hba, log = work / "pg_hba.conf", work / "server.log"
    hba.write_text("local all all trust\n")  # only we and the server's account can reach the socket
    log.touch(mode=0o600)
    for path in (sockets, hba, log):
        account.own(path)
    settings = {**PRIVATE, **settings, "unix_socket_directories": str(sockets), "hba_file": str(hba)}
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [binaries.path("postgres"), "-D", data, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=client_environment(),
            start_new_session=True,
            pass_fds=[lock],
            preexec_fn=partial(end_with, os.getpid(), signal.SIGINT),  # noqa: PLW1509 - two system calls, no lock
            **account.process_owner(),
        )
    try:
        with _connected(process, sockets, superuser, log) as connection:
            yield connection, log
        _stop(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        if sockets != work:
            shutil.rmtree(sockets, ignore_errors=True)


def _socket_directory(work: Path) -> Path:
    if len(os.fsencode(work)) <= MAX_SOCKET_DIRECTORY_BYTES:
        return work
    return Path(tempfile.mkdtemp(prefix="depot-pg-"))


def _recovery_settings(plan: RecoveryPlan, staged: Path) -> dict[str, str]:
    settings = {
        **CUT_TIES,
        "restore_command": _restore_command(staged),
        "recovery_target_timeline": str(plan.path.timeline),
        "recovery_target_action": "promote",
        # With hot standby, a recovery waits for ever where the primary had more connections.
        "hot_standby": "off",
    }
    # The one that is set comes last: an empty one behind it is taken for a second target.
    settings |= dict.fromkeys(TARGET_SETTINGS, "")
    if plan.target.kind is not TargetKind.LATEST:
        name = f"recovery_target_{plan.target.kind}"
        settings.pop(name)
        settings[name] = plan.target.value
    settings["recovery_target_inclusive"] = "off" if plan.target.kind is TargetKind.LSN else "on"
    return settings


def _restore_command(staged: Path) -> str:
    """What is not staged is not in the archive; what is staged and cannot be read must not look like its end."""
    directory = shlex.quote(str(staged)).replace("%", "%%")
    return f'if [ -e {directory}/%f ]; then cp {directory}/%f "%p" || exit 126; else exit 1; fi'


@contextmanager
def _connected(
    process: subprocess.Popen[bytes], sockets: Path, superuser: str, log: Path
) -> Iterator[psycopg.Connection[Any]]:
    while True:
        if process.poll() is not None:
            if TARGET_NOT_REACHED in log.read_text(errors="replace"):
                raise TargetNotReached(
                    f"the log in the archive ends before the target ({_tail(log, 1)}): no commit after it is archived."
                    " Name an earlier target or --latest"
                )
            raise RestoreError(f"the recovery failed: {_tail(log)}")
        try:
            connection = psycopg.connect(
                host=str(sockets), port=SOCKET_PORT, user=superuser, dbname="postgres", autocommit=True
            )
        except psycopg.OperationalError as error:
            if "FATAL" in str(error) and "the database system is" not in str(error):
                raise RestoreError(f"the recovered server lets nobody in: {str(error).strip()}") from error
            time.sleep(POLL_SECONDS)
            continue
        with connection:
            yield connection
        return


def _ended(connection: psycopg.Connection[Any]) -> tuple[bool, str, datetime | None, int]:
    row = connection.execute(_ENDED).fetchone()
    assert row is not None
    in_recovery, ended, last_commit, timeline = row
    return in_recovery, ended, last_commit, timeline


def _check_end(plan: RecoveryPlan, ended: str) -> None:
    """A server that misses a segment or cannot read one promotes as if that were the end: compare with the plan."""
    expected = {
        TargetKind.LATEST: plan.archived_end,
        TargetKind.LSN: plan.target.position if plan.target.kind is TargetKind.LSN else 0,
    }.get(plan.target.kind, parse_lsn(plan.base.record.stop_lsn))
    if parse_lsn(ended) < expected:
        raise RestoreError(
            f"the recovery ended at {ended}, before {format_lsn(expected)}, which the log in the archive reaches: what"
            " was recovered is not what was asked for, and was removed"
        )


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise RestoreError(f"the recovered server does not shut down: {_tail(log)}") from None
    if code != 0:
        raise RestoreError(f"the recovered server did not shut down cleanly: {_tail(log)}")


def _tail(log: Path, lines: int = LOG_LINES) -> str:
    written = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in written if "FATAL" in line or "PANIC" in line]
    return " ".join((fatal or written)[-lines:]) or "it wrote no log"


# After it -----------------------------------------------------------------------------------------------------------


def _verify(plan: RecoveryPlan, data: Path, binaries: Binaries) -> None:
    if not plan.base.record.data_checksums:
        raise RestoreError(
            "this cluster has no data checksums by which its pages could be verified: leave out --verify"
        )
    with running([str(binaries.path("pg_checksums")), "--check", f"--pgdata={data}"], client_environment()):
        pass


def _cut_ties(data: Path, account: ServerAccount) -> None:
    """A cluster that is started as it lies must not write into the archive that it came from."""
    configuration = data / "postgresql.auto.conf"
    with configuration.open("a") as file:
        file.write("# Restored by depot-ops: reset these when this becomes the primary.\n")
        file.writelines(f"{name} = '{value}'\n" for name, value in CUT_TIES.items())
        file.flush()
        os.fsync(file.fileno())
    account.own(configuration)
