"""What one worker of the service holds: its settings, its database connections and its blob store."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from psycopg.rows import DictRow

from depot_api.blobstore.store import BlobStore
from depot_api.database.pool import Database
from depot_api.settings import Settings
from depot_api.stopping import Stopping


@dataclass(frozen=True, slots=True)
class Depot:
    settings: Settings
    database: Database
    store: BlobStore
    stopping: Stopping = field(default_factory=Stopping)
    # By the token's hash: {user_id, scope}.
    api_tokens: dict[bytes, DictRow] = field(default_factory=dict)


async def _depot(request: Request) -> Depot:  # async, or each request would hop to a thread for it
    depot: Depot = request.app.state.depot
    return depot


DepotState = Annotated[Depot, Depends(_depot)]
