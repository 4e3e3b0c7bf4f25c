"""Where drills happen: what they restore, with what, and a private directory that only one of them has."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from depot_ops.exclusive import exclusively
from depot_ops.places import Place, open_place
from depot_ops.postgres.accounts import ServerAccount, runnable_binaries, server_account
from depot_ops.postgres.binaries import Binaries, find_binaries
from depot_ops.settings import CopyPlaceSettings, DrillSettings, load

# Short, because sockets lie below it; and told from anything else that somebody keeps in that directory.
HOME_PREFIX = "drill-"
HOMES = f"{HOME_PREFIX}{'[0-9a-f]' * 8}"


class DrillRunning(Exception):
    """Another drill runs in the same directory."""


@dataclass(frozen=True, slots=True)
class Site:
    """What is drilled, from what, and where."""

    ops_url: str = field(repr=False)
    """The depot's database as depot_ops, which writes canaries and nothing else."""
    replication_url: str = field(repr=False)
    """The same server as a role that may finish a segment."""
    backup_dir: Path
    archive_root: Path
    drill_dir: Path
    """Where copies are restored to, and removed from."""
    stores: tuple[Path, ...]
    """The blob store, and its mirror where there is one."""
    blob_shards: int
    """All content is re-hashed by this many drills, one after the other; 1 is all of it by each."""
    rpo_objective_seconds: float
    """For so long a canary may take into the archive by itself."""
    stream: Path | None
    """Where the log is streamed to, if it is: what it has behind the archive's end is restored too."""
    copy: Place | None
    """The second place, when everything shall be restored from there."""
    binaries: Binaries
    account: ServerAccount
    say: Callable[[str], None]
    """Told what begins, for whoever waits."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The private directory of one drill. Whatever server it starts holds `lock` to its own end."""

    home: Path
    lock: int


def configured_site(settings: DrillSettings, say: Callable[[str], None], *, from_copy: bool = False) -> Site:
    """The site that the environment describes. Raises AccountError, BinariesNotFound, SettingsError, PlaceError."""
    account = server_account()
    stores = (settings.asset_storage_path, settings.asset_storage_replica_path)
    return Site(
        ops_url=settings.depot_ops_url.get_secret_value(),
        replication_url=settings.depot_replication_url.get_secret_value(),
        backup_dir=settings.backup_dir,
        archive_root=settings.wal_archive_dir,
        drill_dir=settings.drill_dir.absolute(),
        stores=tuple(store for store in stores if store is not None),
        blob_shards=settings.drill_blob_shards,
        rpo_objective_seconds=settings.rpo_objective_seconds,
        stream=None if from_copy else settings.wal_stream_dir,
        copy=open_place(load(CopyPlaceSettings).backup_copy_url) if from_copy else None,
        binaries=runnable_binaries(find_binaries(), account),
        account=account,
        say=say,
    )


@contextmanager
def sole_workspace(site: Site) -> Iterator[Workspace]:
    """A new directory in `site.drill_dir`, gone at the end; what killed drills left there goes first.

    Raises DrillRunning, and OSError.
    """
    site.drill_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    # The copy's server inherits the lock: when we are killed, the directory stays taken until it too has ended.
    refusal = DrillRunning(
        f"another drill runs in {site.drill_dir}, or a killed one ends just now: wait until it has ended"
    )
    with exclusively(site.drill_dir / ".lock", refusal) as lock:
        for leftover in site.drill_dir.glob(HOMES):
            shutil.rmtree(leftover)
        home = site.drill_dir / f"{HOME_PREFIX}{secrets.token_hex(4)}"
        try:
            home.mkdir(mode=0o700)
            site.account.own(home)
            yield Workspace(home, lock)
        finally:
            shutil.rmtree(home, ignore_errors=True)
