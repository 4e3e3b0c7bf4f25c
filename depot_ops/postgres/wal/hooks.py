"""`depot-ops wal push %p` and `depot-ops wal get %f %p`: what a server runs as archive_command and restore_command.

A server believes the exit code. Of `get`, everything from 1 to 125 means "the archive does not have it", upon which a
recovery ends as if that were all there is: only proven absence may answer so. Of `push`, 1 means "try again", while
codes above 125 are never counted as failures: it answers nothing else.

This starts once for each segment: nothing heavy is imported.
"""

import argparse
import os
import struct
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

from depot_ops.postgres.wal.archive import ArchiveError, NotArchived, WalArchive
from depot_ops.postgres.wal.content import BadWalFile, read_header
from depot_ops.postgres.wal.names import WalKind, WalName, parse_wal_name

CONTROL_FILE = Path("global/pg_control")


class HookExit(IntEnum):
    """What a server is told."""

    DONE = 0
    ABSENT = 1
    NOT_PUSHED = 1
    UNKNOWN = 126


class HookError(Exception):
    """The call makes no sense; the message says why."""


def push(path: Path, archive_root: Path) -> None:
    """Archive the file at `path`. Raises BadWalFile, ArchiveError, HookError or OSError when that is not so."""
    name = _known_name(path.name)
    content = path.read_bytes()
    system = control_system_identifier(path.absolute().parent.parent)
    if system is None and name.kind in (WalKind.SEGMENT, WalKind.PARTIAL):
        system = read_header(name.name, content).system_identifier
    if system is None:
        raise HookError(f"no data directory says which cluster {path} is of: push it from its pg_wal")
    WalArchive(archive_root, system).store(name, content)


def get(name: WalName, destination: Path, archive_root: Path, spool: Path | None = None) -> None:
    """Put the file `name` to `destination`, whole or not at all. Raises NotArchived only when it is proved absent.

    With a `spool`, the segments behind it are fetched there meanwhile. The server flushes what it keeps, and asks again
    after a crash: this does not wait for the disk.
    """
    system = control_system_identifier(Path.cwd()) or control_system_identifier(destination.absolute().parent.parent)
    if system is None:
        raise HookError(f"{Path.cwd()} is no data directory: run this as restore_command")
    archive = WalArchive(archive_root, system)
    if spool is not None:
        from depot_ops.postgres.wal import prefetch  # noqa: PLC0415 - what is not used is not imported, once a segment

        taken = prefetch.take(name, archive, spool, destination)
        prefetch.start(name, archive, spool)
        if taken:
            return
    content = archive.fetch(name)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.chmod(0o600)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def control_system_identifier(data: Path) -> int | None:
    """Whose data directory this is; the control file starts with it. None when it is no data directory."""
    try:
        return int(struct.unpack_from("=Q", (data / CONTROL_FILE).read_bytes())[0])
    except FileNotFoundError:
        return None


def run(arguments: Sequence[str]) -> int:
    """Do what `push …` or `get …` says, and return what the server shall be told."""
    command, *rest = arguments
    failure = HookExit.UNKNOWN if command == "get" else HookExit.NOT_PUSHED
    try:
        options = _parser(command).parse_args(rest)
        if command == "push":
            push(options.path, options.archive)
        else:
            get(_known_name(options.name), options.path, options.archive, options.prefetch)
    except NotArchived:
        return HookExit.ABSENT
    except (ArchiveError, BadWalFile, HookError, OSError) as error:
        print(f"depot-ops wal {command}: {error}", file=sys.stderr)  # noqa: T201 - it ends up in the server's log
        return failure
    return HookExit.DONE


def main(arguments: Sequence[str]) -> NoReturn:
    """Run and exit. An error that nobody foresaw must not be taken for absence either: Python would exit with 1."""
    try:
        code = run(arguments)
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = HookExit.UNKNOWN if arguments[0] == "get" else HookExit.NOT_PUSHED
    sys.exit(code)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise HookError(f"{message}\n{self.format_usage().strip()}")


def _parser(command: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"depot-ops wal {command}")
    if command == "get":
        parser.add_argument("name", metavar="%f", help="the file's name")
        spool = os.environ.get("WAL_PREFETCH_DIR")
        parser.add_argument("--prefetch", type=Path, default=spool and Path(spool), help="a spool for what comes next")
    parser.add_argument("path", metavar="%p", type=Path, help="where it lies, or shall lie")
    archive = os.environ.get("WAL_ARCHIVE_DIR")
    parser.add_argument("--archive", type=Path, default=archive and Path(archive), required=not archive)
    return parser


def _known_name(text: str) -> WalName:
    if name := parse_wal_name(text):
        return name
    raise HookError(f"{text} is no file of the log")
