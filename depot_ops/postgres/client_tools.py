"""Running PostgreSQL's client programs: the connection travels in their environment, never in their arguments."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import psycopg
from psycopg import pq

CONNECT_TIMEOUT_SECONDS = 10  # a server that does not answer at all must not hold the night up
STDERR_TAIL_BYTES = 4000  # the last lines say why; a program that complains a million times must not fill our memory


class BadAddress(Exception):
    """The address of a database is none, or says what a client program cannot be told. Never quotes the address."""


class ToolFailed(Exception):
    """A client program ended with an error or was killed; the message ends with what it wrote to stderr."""


def client_environment(url: str = "") -> dict[str, str]:
    """The environment for a client program, with the connection to `url` when one is given.

    Raises BadAddress when `url` cannot be parsed or has a parameter that no environment variable carries.
    """
    return {"PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_SECONDS), **os.environ, "LC_ALL": "C", **_variables(url)}


def parse_address(url: str) -> list[pq.ConninfoOption]:
    """What the address says. psycopg itself quotes one that it cannot use, with its password. Raises BadAddress."""
    try:
        given = [option for option in pq.Conninfo.parse(url.encode()) if option.val is not None]
    except (psycopg.Error, UnicodeError):
        # Not chained: the parser's own message repeats parts of the address.
        raise BadAddress("the database address is not of the form postgresql://role:password@host:port/name") from None
    values = {option.keyword: option.val or b"" for option in given}
    # With these in a password, a part of it is taken for host or port, and quoted when there is no such host.
    if b"@" in values.get(b"host", b"")[1:] or values.get(b"port", b"").strip(b"0123456789,"):
        raise BadAddress("the database address has no usable host or port: write @ as %40 and / as %2F in its password")
    return given


def _variables(url: str) -> dict[str, str]:
    given = parse_address(url)
    lost = sorted(option.keyword.decode() for option in given if option.envvar is None)
    if lost:
        raise BadAddress(f"remove from the database address what pg_dump cannot be told: {', '.join(lost)}")
    return {option.envvar.decode(): option.val.decode() for option in given if option.envvar and option.val}


@contextmanager
def running(
    command: Sequence[str],
    environment: dict[str, str],
    *,
    stdout: int = subprocess.DEVNULL,
    keep_open: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` while the block runs, and wait for it at the end; a block that raises kills it.

    Files it makes are its owner's alone. Raises ToolFailed unless it exits with 0.
    """
    with TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=errors,
            pass_fds=keep_open,
            umask=0o077,
        )
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
            if process.stdout:
                process.stdout.close()
        if process.returncode != 0:
            size_bytes = errors.seek(0, os.SEEK_END)
            errors.seek(max(0, size_bytes - STDERR_TAIL_BYTES))
            raise ToolFailed(_describe(command[0], process.returncode, errors.read().decode(errors="replace")))


def _describe(program: str, returncode: int, stderr: str) -> str:
    name = Path(program).name
    if returncode < 0:
        return f"{name} was killed by {signal.Signals(-returncode).name}. {stderr.strip()}"
    return f"{name} ended with exit code {returncode}: {stderr.strip() or 'it did not say why'}"
