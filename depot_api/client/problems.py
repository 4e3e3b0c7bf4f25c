"""What can go wrong between this machine and the depot, each error with what to do next."""

from collections.abc import Mapping
from typing import Any

PROBLEM_PREFIX = "urn:asset-depot:problem:"
SERVER_SIDE_STATUSES = frozenset({500, 502, 503, 504})  # the outcome says nothing about what was asked


class DepotError(Exception):
    """Base of everything the client raises on purpose; the text is fit for users."""


class Unreachable(DepotError):
    """The request never arrived: nothing was changed."""


class ConnectionLost(Unreachable):
    """The connection broke off and trying again did not help; repeating the request is safe."""


class OutcomeUnknown(DepotError):
    """The connection broke off in a request that cannot be repeated blindly: look before asking again."""


class UnexpectedAnswer(DepotError):
    """The answer is not one that a depot gives."""


class BeingRestored(DepotError):
    """Content that an archive restores: hours later it is there."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__("The content is being restored from an archive, which takes hours. Ask again later.")
        self.retry_after_seconds = retry_after_seconds


class DamagedContent(DepotError):
    """Received bytes that are not the content they were announced as."""


class LocalFileError(DepotError):
    """A file or directory of the workspace cannot be read or written."""


class FileChanged(LocalFileError):
    """A file changed while it was being read."""


class PathRefused(DepotError):
    """A path that must not be submitted, or not be written to."""


class WorkspaceError(DepotError):
    """The workspace's own records do not fit what was asked."""


class NotSignedIn(DepotError):
    """No address or no token is known."""


class Interrupted(DepotError):
    """Another part of the same operation failed or was stopped."""


class ProblemError(DepotError):
    """An RFC 9457 problem that the depot answered.

    Attributes: `status` (HTTP), `type` (stable URN), `title`, `detail`, `errors` (list of
    `{"detail", "pointer"}`), `extra` (members particular to the type, as `stale`), `request_id`.
    """

    def __init__(self, status: int, document: Mapping[str, Any], request_id: str = "") -> None:
        self.status = status
        self.type = str(document.get("type", "about:blank"))
        self.title = str(document.get("title", f"HTTP status {status}"))
        self.detail = str(document.get("detail") or "")
        errors = document.get("errors")
        self.errors: list[dict[str, Any]] = errors if isinstance(errors, list) else []
        known = {"type", "title", "status", "detail", "errors"}
        self.extra: dict[str, Any] = {name: value for name, value in document.items() if name not in known}
        self.request_id = request_id
        super().__init__(f"{self.title}: {self.detail}" if self.detail else self.title)

    @property
    def slug(self) -> str:
        """The last part of the type, as `stale-base`."""
        return self.type.removeprefix(PROBLEM_PREFIX)
