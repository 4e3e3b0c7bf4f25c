"""The Python client: the depot's routes, and whole directory trees in and out.

from depot_api.client import DepotClient, submit_tree, sync_tree
"""

from depot_api.client.depot import DepotClient
from depot_api.client.problems import (
    BeingRestored,
    ConnectionLost,
    DamagedContent,
    DepotError,
    FileChanged,
    LocalFileError,
    NotSignedIn,
    OutcomeUnknown,
    PathRefused,
    ProblemError,
    UnexpectedAnswer,
    Unreachable,
    WorkspaceError,
)
from depot_api.client.submit import SubmitResult, submit_tree
from depot_api.client.sync import Status, SyncResult, Verification, status, sync_tree, verify

__all__ = [
    "BeingRestored",
    "ConnectionLost",
    "DamagedContent",
    "DepotClient",
    "DepotError",
    "FileChanged",
    "LocalFileError",
    "NotSignedIn",
    "OutcomeUnknown",
    "PathRefused",
    "ProblemError",
    "Status",
    "SubmitResult",
    "SyncResult",
    "UnexpectedAnswer",
    "Unreachable",
    "Verification",
    "WorkspaceError",
    "status",
    "submit_tree",
    "sync_tree",
    "verify",
]
