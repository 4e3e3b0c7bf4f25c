"""Rules of projects and members."""

from uuid import UUID

from psycopg import errors

from depot_api import events
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.problems import AlreadyExists, Conflict, Forbidden, Invalid, NotFound, ProblemError, ProjectArchived
from depot_api.projects import queries
from depot_api.projects.models import (
    Member,
    MemberSet,
    Project,
    ProjectArchive,
    ProjectCreate,
    ProjectRole,
    ProjectStatus,
    ProjectUpdate,
)
from depot_api.wire import NIL, Page, decode_cursor, decode_uuid_cursor, encode_cursor


async def readable_project(tx: Transaction, project_id: UUID) -> Project:
    """Raises NotFound for a project that is not there or not the asker's: the two look the same."""
    row = await queries.project(tx, project_id)
    if row is None:
        raise NotFound(f"There is no project {project_id} that you can see.")
    return Project.model_validate(row)


async def writable_project(tx: Transaction, project_id: UUID, needed: ProjectRole) -> Project:
    """Raises NotFound, Forbidden or ProjectArchived. The database's policies hold the same line without words."""
    project = await readable_project(tx, project_id)
    _require_role(project, needed)
    if project.status is ProjectStatus.ARCHIVED:
        raise ProjectArchived(f"Project {project.name} is archived and takes no changes. A manager can un-archive it.")
    return project


def _require_role(project: Project, needed: ProjectRole) -> None:
    if not project.my_role.covers(needed):
        raise Forbidden(f"This takes the role {needed} or above in project {project.name}; yours is {project.my_role}.")


async def create_project(actor: Actor, wanted: ProjectCreate, idempotency_key: str | None) -> Project:
    async def create() -> Project:
        try:
            project_id = await queries.create_project(tx, wanted.name, wanted.description)
        except errors.UniqueViolation:
            raise _name_taken(wanted.name) from None
        except errors.InsufficientPrivilege:
            raise Forbidden("Projects are created by studio editors and admins.") from None
        await events.record(tx, project_id, EventKind.PROJECT_CREATED, actor.user_id, {"name": wanted.name})
        return await readable_project(tx, project_id)

    async with actor.transaction() as tx:
        request = "create project " + wanted.model_dump_json()
        return await once(tx, actor.user_id, idempotency_key, request, Project, create)


def _name_taken(name: str | None) -> AlreadyExists:
    return AlreadyExists(
        f"There is a project named {name!r} already. Choose another name.",
        errors=[ProblemError(detail="taken", pointer="/name")],
    )


async def update_project(actor: Actor, project_id: UUID, wanted: ProjectUpdate) -> Project:
    async with actor.transaction() as tx:
        await writable_project(tx, project_id, ProjectRole.MANAGER)
        sets_quota = "quota_bytes" in wanted.model_fields_set
        try:
            await queries.update_project(
                tx, project_id, wanted.name, wanted.description, wanted.status, sets_quota, wanted.quota_bytes
            )
        except errors.UniqueViolation:
            raise _name_taken(wanted.name) from None
        payload = wanted.model_dump(mode="json", exclude_unset=True)
        await events.record(tx, project_id, EventKind.PROJECT_UPDATED, actor.user_id, payload)
        return await readable_project(tx, project_id)


async def archive_project(actor: Actor, project_id: UUID, reason: str, idempotency_key: str | None) -> ProjectArchive:
    """From then on the database refuses every write to the project, but for `unarchive_project`."""

    async def archive() -> ProjectArchive:
        await queries.lock_project(tx, project_id)
        await writable_project(tx, project_id, ProjectRole.MANAGER)
        # The event comes first: afterwards the project takes no rows any more.
        await events.record(tx, project_id, EventKind.PROJECT_ARCHIVED, actor.user_id, {"reason": reason})
        return ProjectArchive.model_validate(await queries.archive_project(tx, project_id, reason))

    async with actor.transaction() as tx:
        request = f"archive project {project_id} {reason}"
        return await once(tx, actor.user_id, idempotency_key, request, ProjectArchive, archive)


async def unarchive_project(actor: Actor, project_id: UUID) -> Project:
    async with actor.transaction() as tx:
        project = await readable_project(tx, project_id)
        _require_role(project, ProjectRole.MANAGER)
        if not await queries.unarchive_project(tx, project_id):
            raise Conflict(f"Project {project.name} is not archived; it is {project.status}.")
        await events.record(tx, project_id, EventKind.PROJECT_UNARCHIVED, actor.user_id, {})
        return await readable_project(tx, project_id)


async def list_archives(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[ProjectArchive]:
    after = decode_uuid_cursor(cursor) or NIL
    async with actor.transaction() as tx:
        await readable_project(tx, project_id)
        rows = await queries.archives(tx, project_id, after, limit)
    items = [ProjectArchive.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def get_project(actor: Actor, project_id: UUID) -> Project:
    async with actor.transaction() as tx:
        return await readable_project(tx, project_id)


async def list_projects(actor: Actor, name: str | None, limit: int, cursor: str | None) -> Page[Project]:
    after = decode_cursor(cursor, str)
    async with actor.transaction() as tx:
        rows = await queries.projects(tx, name, str(after[0]) if after else "", limit)
    items = [Project.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(items[-1].name.lower()) if len(items) == limit else None)


async def list_members(actor: Actor, project_id: UUID, limit: int, cursor: str | None) -> Page[Member]:
    after = decode_uuid_cursor(cursor) or NIL
    async with actor.transaction() as tx:
        await readable_project(tx, project_id)
        rows = await queries.members(tx, project_id, after, limit)
    items = [Member.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].user_id)) if len(items) == limit else None)


async def set_member(actor: Actor, project_id: UUID, wanted: MemberSet) -> Member:
    """Add a member or change a member's role. Nobody hands out a role above their own."""
    async with actor.transaction() as tx:
        project = await writable_project(tx, project_id, ProjectRole.MANAGER)
        if not project.my_role.covers(wanted.role):
            raise Forbidden(f"You are {project.my_role} here and cannot make someone {wanted.role}.")
        owners = await queries.owners(tx, project_id)
        try:
            row = await queries.set_member(tx, project_id, wanted.username, wanted.role)
        except errors.InsufficientPrivilege:
            raise Forbidden("Only an owner can change an owner's role.") from None
        if row is None:
            raise Invalid(
                f"There is no active user {wanted.username!r}.",
                errors=[ProblemError(detail="unknown user", pointer="/username")],
            )
        member = Member.model_validate(row)
        if owners == [member.user_id] and wanted.role is not ProjectRole.OWNER:
            raise Conflict("This is the project's only owner. Make someone else owner first.")
        payload = {"user_id": str(member.user_id), "role": member.role}
        await events.record(tx, project_id, EventKind.MEMBER_SET, actor.user_id, payload)
        return member


async def remove_member(actor: Actor, project_id: UUID, user_id: UUID) -> None:
    async with actor.transaction() as tx:
        project = await writable_project(tx, project_id, ProjectRole.MANAGER)
        owners = await queries.owners(tx, project_id)
        role = await queries.member_role(tx, project_id, user_id)
        if role is None:
            raise NotFound(f"User {user_id} is not a member of project {project.name}.")
        if not project.my_role.covers(ProjectRole(role)):
            raise Forbidden(f"You are {project.my_role} here and cannot remove a member who is {role}.")
        if owners == [user_id]:
            raise Conflict("This is the project's only owner. Make someone else owner first.")
        await queries.remove_member(tx, project_id, user_id)
        await events.record(
            tx, project_id, EventKind.MEMBER_REMOVED, actor.user_id, {"user_id": str(user_id), "role": role}
        )
