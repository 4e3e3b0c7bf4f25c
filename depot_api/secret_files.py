"""`python -m depot_api.secret_files COMMAND…`: run a command with the secrets of files in its environment.

NAME_FILE=/run/secrets/name becomes NAME=<what the file holds>. For containers, whose own environment anyone lists
who may talk to the engine. Of other directories (SSL_CERT_FILE) nothing is read; SECRETS_DIR names another than
/run/secrets.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SUFFIX = "_FILE"
DIRECTORY = "/run/secrets"


class SecretFileError(Exception):
    """A secret cannot be read; the message names the variable and the file, never what is in it."""


def with_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with each secret's NAME_FILE replaced by NAME. Raises SecretFileError."""
    directory = Path(environment.get("SECRETS_DIR", DIRECTORY))
    secret = {name for name, value in environment.items() if name.endswith(SUFFIX) and Path(value).parent == directory}
    resolved = {name: value for name, value in environment.items() if name not in secret}
    for variable in sorted(secret):
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
