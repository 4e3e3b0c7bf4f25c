"""Rules of permissions by path. Reading is enforced by the database's policies; writing there and, with words, here."""

from collections.abc import Sequence
from uuid import UUID

from depot_api import events
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.identity.actor import Actor
from depot_api.paths import path_key
from depot_api.patterns import as_regex
from depot_api.permissions import queries
from depot_api.permissions.models import MyPathAccess, PathAccess, PathRules
from depot_api.problems import Invalid, PathForbidden, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole

MAX_NAMED = 100


async def get_rules(actor: Actor, project_id: UUID) -> PathRules:
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        return PathRules.model_validate({"rules": await queries.rules(tx, project_id)})


async def set_rules(actor: Actor, project_id: UUID, wanted: PathRules) -> PathRules:
    """The whole list takes the place of the one before. Raises Invalid for a user who is no member."""
    async with actor.transaction() as tx:
        await projects.writable_project(tx, project_id, ProjectRole.MANAGER)
        await _refuse_strangers(tx, project_id, wanted)
        await queries.replace_rules(
            tx,
            project_id,
            [rule.pattern for rule in wanted.rules],
            [as_regex(rule.pattern) for rule in wanted.rules],
            [rule.username for rule in wanted.rules],
            [rule.role for rule in wanted.rules],
            [rule.access for rule in wanted.rules],
        )
        payload = {"rules": len(wanted.rules)}
        await events.record(tx, project_id, EventKind.PATH_PERMISSIONS_SET, actor.user_id, payload)
        return PathRules.model_validate({"rules": await queries.rules(tx, project_id)})


async def _refuse_strangers(tx: Transaction, project_id: UUID, wanted: PathRules) -> None:
    names = {rule.username: index for index, rule in enumerate(wanted.rules) if rule.username is not None}
    members = await queries.members(tx, project_id, list(names))
    strangers = [
        ProblemError(detail=f"{name!r} is no member of the project", pointer=f"/rules/{index}/username")
        for name, index in names.items()
        if name.lower() not in members
    ]
    if strangers:
        raise Invalid(strangers[0].detail, errors=strangers)


async def my_access(actor: Actor, project_id: UUID, path: str) -> MyPathAccess:
    async with actor.transaction() as tx:
        await projects.readable_project(tx, project_id)
        access = await queries.my_access(tx, project_id, path_key(path))
    return MyPathAccess(path=path, access=PathAccess(access))


async def refuse_forbidden(
    tx: Transaction, project_id: UUID, paths: Sequence[tuple[str, str, PathAccess]], pointer: str = "/items"
) -> None:
    """`paths` are (path, path_key, access needed). Raises PathForbidden."""
    if not paths:
        return
    rows = await queries.forbidden_paths(tx, project_id, paths, MAX_NAMED)
    if rows:
        named = [
            ProblemError(detail=f"{row['path']!r} needs {row['needed']}; you have {row['access']}", pointer=pointer)
            for row in rows
        ]
        raise PathForbidden(f"{named[0].detail}. A manager of the project sets the permissions.", errors=named)


async def refuse_hidden_paths(tx: Transaction, project_id: UUID) -> None:
    """For what has to see a whole branch. Raises PathForbidden."""
    if await queries.may_hide(tx, project_id):
        raise PathForbidden(
            "A rule of the project may hide paths from you, and this needs to see them all. "
            "Ask a manager, or somebody whom no rule with access none is about."
        )
