"""What a directory has from the depot, kept in `.depot/workspace.sqlite` inside it.

Five facts are kept for each path and never mixed: the version that the workspace *has*, the hash
that was *seen* in a file of a certain size, time and inode, so that it need not be read again, the
action that the user *opened* it for, the path that it was *moved* here from, and the number of the
lock under which it was *locked* here.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from depot_api.client.files import STATE_DIRECTORY, FileStat
from depot_api.client.models import Action, Item, Version
from depot_api.client.problems import WorkspaceError

STATE_FILE = "workspace.sqlite"
# A file changed again within its time stamp's granularity looks unchanged. As git does, a time stamp
# is trusted only when it was already old at the time of looking; 2 s is FAT's, the coarsest in use.
RACY_NS = 2_000_000_000
# Each leads from the format that its index names to the next one; none is ever changed.
SCHEMA_STEPS = (
    """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE have (path TEXT PRIMARY KEY, version INTEGER NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE seen (path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, sha256 TEXT NOT NULL, seen_ns INTEGER NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE opened (path TEXT PRIMARY KEY, action TEXT NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE locked (path TEXT PRIMARY KEY, fencing_number INTEGER NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE moved (path TEXT PRIMARY KEY, origin TEXT NOT NULL) WITHOUT ROWID;
""",
)
SCHEMA_VERSION = len(SCHEMA_STEPS)


@dataclass(frozen=True, slots=True)
class Target:
    """The branch that a workspace follows."""

    project_id: UUID
    project_name: str
    branch_id: UUID
    branch_name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A hash, and the file in which it was seen at the time `seen_ns` (nanoseconds since the epoch)."""

    stat: FileStat
    sha256: str
    seen_ns: int

    def holds_for(self, stat: FileStat) -> bool:
        """Whether a file that looks like `stat` must have this hash (racy-clean rule, see RACY_NS)."""
        return stat == self.stat and stat.mtime_ns < self.seen_ns - RACY_NS


@dataclass(frozen=True, slots=True)
class Pending:
    """A submit that was begun and whose answer has not arrived yet."""

    changelist_id: UUID
    idempotency_key: str
    description: str
    items: tuple[Item, ...]


class Workspace:
    """The records of one directory. One process at a time; every change is one transaction.

    Raises WorkspaceError when another command is at work in the directory, or the records are damaged.
    """

    def __init__(self, root: Path) -> None:
        """Open, or begin, the records of `root`; in memory only when nothing can be written there."""
        self.root = root
        self.is_remembered = True
        try:
            (root / STATE_DIRECTORY).mkdir(exist_ok=True)
            self._db = _open(state_path(root))
        except OSError:
            self.is_remembered = False
            self._db = _open(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    @property
    def target(self) -> Target | None:
        value = self._fact("target")
        if value is None:
            return None
        return Target(UUID(value["project_id"]), value["project_name"], UUID(value["branch_id"]), value["branch_name"])

    @property
    def at(self) -> int | None:
        """The changelist whose manifest the have-list equals; None when it is a mixture."""
        value = self._fact("at")
        return None if value is None else int(value)

    @property
    def pending(self) -> Pending | None:
        value = self._fact("pending")
        if value is None:
            return None
        items = tuple(Item(Action(item.pop("action")), **item) for item in value["items"])
        return Pending(UUID(value["changelist_id"]), value["idempotency_key"], value["description"], items)

    def have(self) -> dict[str, Version]:
        rows = self._db.execute("SELECT path, version, sha256, size_bytes FROM have")
        return {path: Version(version, sha256, size_bytes) for path, version, sha256, size_bytes in rows}

    def seen(self) -> dict[str, Seen]:
        rows = self._db.execute("SELECT path, size_bytes, mtime_ns, inode, sha256, seen_ns FROM seen")
        return {
            path: Seen(FileStat(size_bytes, mtime_ns, inode), sha256, seen_ns)
            for path, size_bytes, mtime_ns, inode, sha256, seen_ns in rows
        }

    def opened(self) -> dict[str, Action]:
        """What the user means to change, in path order."""
        rows = self._db.execute("SELECT path, action FROM opened ORDER BY path")
        return {path: Action(action) for path, action in rows}

    def open_files(self, actions: Mapping[str, Action]) -> None:
        """Open files, or open them for something else."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO opened VALUES (?, ?)", actions.items())

    def moved(self) -> dict[str, str]:
        """path → the path that the user has moved it here from."""
        return dict(self._db.execute("SELECT path, origin FROM moved"))

    def open_moved(self, origins: Mapping[str, str], left: Iterable[str]) -> None:
        """Open files at the paths that they were moved to, and their origins for delete; those `left` are no more.

        What is back where it came from is as if it never was away.
        """
        moves = {path: origin for path, origin in origins.items() if path != origin}
        with self._transaction():
            self._close([*left, *origins, *origins.values()])
            self._db.executemany(
                "INSERT OR REPLACE INTO opened VALUES (?, ?)",
                [(path, Action.ADD) for path in moves] + [(origin, Action.DELETE) for origin in moves.values()],
            )
            self._db.executemany("INSERT OR REPLACE INTO moved VALUES (?, ?)", moves.items())

    def close_files(self, paths: Iterable[str]) -> None:
        with self._transaction():
            self._close(paths)

    def locked(self) -> dict[str, int]:
        """The fencing number of the lock that each path was locked with here: what a submit of it relies on."""
        return dict(self._db.execute("SELECT path, fencing_number FROM locked"))

    def remember_locks(self, numbers: Mapping[str, int]) -> None:
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO locked VALUES (?, ?)", numbers.items())

    def forget_locks(self, paths: Iterable[str]) -> None:
        with self._transaction():
            self._unlock(paths)

    def remember_seen(self, seen: Mapping[str, Seen]) -> None:
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (path, one.stat.size_bytes, one.stat.mtime_ns, one.stat.inode, one.sha256, one.seen_ns)
                    for path, one in seen.items()
                ),
            )

    def remember_pending(self, pending: Pending) -> None:
        with self._transaction():
            self._set_fact("pending", asdict(pending))

    def forget_pending(self) -> None:
        with self._transaction():
            self._set_fact("pending", None)

    def record(
        self,
        target: Target,
        have: Mapping[str, Version],
        gone: Iterable[str],
        at: int | None,
        *,
        submitted: Iterable[str] = (),
    ) -> None:
        """Take over what the workspace now has of `target`, and that no submit is pending.

        What was submitted is not opened nor locked any more.
        """
        with self._transaction():
            self._update_have(have, gone)
            submitted = list(submitted)
            self._close(submitted)
            self._unlock(submitted)
            self._set_fact("target", asdict(target))
            self._set_fact("at", at)
            self._set_fact("pending", None)

    def record_progress(self, target: Target, have: Mapping[str, Version], gone: Iterable[str]) -> None:
        """Take over a part of a sync: the have-list is a mixture until `record` closes it."""
        with self._transaction():
            self._update_have(have, gone)
            self._set_fact("target", asdict(target))
            self._set_fact("at", None)

    def _update_have(self, have: Mapping[str, Version], gone: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM have WHERE path = ?", ((path,) for path in gone))
        self._db.executemany(
            "INSERT OR REPLACE INTO have VALUES (?, ?, ?, ?)",
            ((path, one.version, one.sha256, one.size_bytes) for path, one in have.items()),
        )

    def _close(self, paths: Iterable[str]) -> None:
        """A move is none any more when either end of it is closed."""
        closed = list(paths)
        self._db.executemany("DELETE FROM opened WHERE path = ?", ((path,) for path in closed))
        self._db.executemany("DELETE FROM moved WHERE ? IN (path, origin)", ((path,) for path in closed))

    def _unlock(self, paths: Iterable[str]) -> None:
        self._db.executemany("DELETE FROM locked WHERE path = ?", ((path,) for path in paths))

    def _fact(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set_fact(self, name: str, value: object) -> None:
        if value is None:
            self._db.execute("DELETE FROM facts WHERE name = ?", (name,))
        else:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value, default=str)))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def state_path(root: Path) -> Path:
    return root / STATE_DIRECTORY / STATE_FILE


def find_root(directory: Path) -> Path | None:
    """The workspace that holds a directory: itself or the nearest above; None when it is in none."""
    resolved = directory.resolve()
    return next((place for place in (resolved, *resolved.parents) if state_path(place).is_file()), None)


def read_target(root: Path) -> Target | None:
    """What a directory follows; None when it has no records."""
    if not state_path(root).is_file():
        return None
    with Workspace(root) as workspace:
        return workspace.target


@contextmanager
def open_existing(root: Path) -> Iterator[tuple[Workspace, Target]]:
    """The records of a directory that has some. Raises WorkspaceError when it has none."""
    if state_path(root).is_file():
        with Workspace(root) as workspace:
            if target := workspace.target:
                yield workspace, target
                return
    raise WorkspaceError(
        f"{root} is not a workspace: nothing was synced into it or submitted from it yet. "
        "Begin one with `depot sync DIR --project P --branch B`."
    )


def now_ns() -> int:
    return time.time_ns()


def _open(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=0, check_same_thread=True)
    try:
        # The exclusive lock is held until the connection closes, also by death: one command at a time.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        for step in SCHEMA_STEPS[version:]:
            for statement in step.split(";"):
                db.execute(statement)
        if version < SCHEMA_VERSION:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        db.close()
        raise _not_usable(path, error) from error
    if version > SCHEMA_VERSION:
        db.close()
        raise WorkspaceError(f"{path} was written by a newer depot command (format {version}). Update this one.")
    return db


def _not_usable(path: Path | None, error: sqlite3.DatabaseError) -> Exception:
    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return WorkspaceError(f"Another depot command is at work ({path} is locked). Wait until it has finished.")
    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return OSError(str(error))
    return WorkspaceError(
        f"The workspace's records in {path} cannot be used ({error}). Delete that file and run `depot sync` again: "
        "what is right is not fetched again."
    )
