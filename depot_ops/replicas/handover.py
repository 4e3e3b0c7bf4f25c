"""The record of a switchover that is under way: whoever comes after one that was killed ends it, or takes it back."""

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from depot_ops.durable import write_private
from depot_ops.replicas.nodes import Nodes, ReplicaError
from depot_ops.replicas.synchronous import Synchronous

RECORD = ".switchover"


class Handover(BaseModel):
    """From the moment when the old primary is told to refuse writes until it is a standby of the new one."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    old: str
    target: str
    began_at: AwareDatetime
    synchronous: Synchronous
    """Who had what was acknowledged, before the target alone did."""
    is_promoting: bool = False
    """The target may have been told to promote: from here on there is no way back."""

    def described(self) -> str:
        return f"a switchover from {self.old} to {self.target} that began {self.began_at:%Y-%m-%d %H:%M:%S} UTC"


def under_way(nodes: Nodes) -> Handover | None:
    """The switchover that was begun here and has not ended. Raises ReplicaError."""
    path = _path(nodes)
    try:
        return Handover.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ReplicaError(f"{path} is no record of a switchover: {error}. Move it away, look at the nodes") from error


def save(nodes: Nodes, handover: Handover) -> Handover:
    write_private(_path(nodes), handover.model_dump_json(indent=2))
    return handover


def forget(nodes: Nodes) -> None:
    _path(nodes).unlink(missing_ok=True)


def _path(nodes: Nodes) -> Path:
    return nodes.directory / RECORD
