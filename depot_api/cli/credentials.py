"""Where `depot login` keeps tokens: one file, readable by its owner only."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from depot_api.client.depot import DepotClient
from depot_api.client.problems import LocalFileError, NotSignedIn

OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Credentials:
    url: str
    username: str
    token: str


def credentials_path() -> Path:
    """`asset-depot/credentials.json` in XDG_CONFIG_HOME, or in ~/.config."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "asset-depot" / "credentials.json"


def save(credentials: Credentials) -> Path:
    """Keep credentials in place of earlier ones. Raises LocalFileError."""
    path = credentials_path()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(credentials), file, indent=2)
        temporary.replace(path)
    except OSError as error:
        raise LocalFileError(
            f"The token cannot be kept in {path}: {error.strerror}. Set DEPOT_TOKEN instead."
        ) from error
    return path


def load() -> Credentials | None:
    """What `depot login` kept. Raises LocalFileError when it cannot be read."""
    path = credentials_path()
    try:
        return Credentials(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LocalFileError(f"{path} cannot be used ({error}). Delete it and run `depot login URL` again.") from error


def connect() -> DepotClient:
    """A client for the depot that DEPOT_URL and DEPOT_TOKEN name, or that was signed in to.

    A kept token is only ever sent to the depot that gave it. Raises NotSignedIn.
    """
    url, token = os.environ.get("DEPOT_URL"), os.environ.get("DEPOT_TOKEN")
    if url and token:
        return DepotClient(url, token)
    kept = load()
    if kept is None:
        raise NotSignedIn("No depot is known. Run `depot login URL`, or set DEPOT_URL and DEPOT_TOKEN.")
    if url and url.rstrip("/") != kept.url:
        raise NotSignedIn(f"DEPOT_URL is {url}, but you are signed in to {kept.url}. Set DEPOT_TOKEN, or log in there.")
    return DepotClient(kept.url, token or kept.token)
