"""`python -m depot_api.secret_files COMMAND…`: run a command with the secrets of files in its environment.

NAME_FILE=/run/secrets/name becomes NAME=<what the file holds>. For containers, whose own environment anyone can list who
may talk to the engine; what is read here is seen by the command's account only.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SUFFIX = "_FILE"


class SecretFileError(Exception):
    """A secret cannot be read; the message names the variable and the file, never what is in it."""


def with_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with each NAME_FILE replaced by NAME. Raises SecretFileError."""
    resolved = {name: value for name, value in environment.items() if not name.endswith(SUFFIX)}
    for variable in environment.keys() - resolved.keys():
        name = variable.removesuffix(SUFFIX)
        if name in resolved:
            raise SecretFileError(f"{name} and {variable} are both set. Keep one of them.")
        resolved[name] = _read(variable, environment[variable])
    return resolved


def _read(variable: str, path: str) -> str:
    try:
        secret = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretFileError(f"{variable} names {path}, which cannot be read: {type(error).__name__}.") from error
    if not secret:
        raise SecretFileError(f"{variable} names {path}, which is empty. deploy/make_secrets.py fills it.")
    return secret


def main(command: list[str]) -> None:
    if not command:
        sys.exit("usage: python -m depot_api.secret_files COMMAND…")
    try:
        environment = with_secrets(os.environ)
    except SecretFileError as error:
        sys.exit(str(error))
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}.")


if __name__ == "__main__":
    main(sys.argv[1:])
