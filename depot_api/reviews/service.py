"""Rules of reviews: who is asked, who decides, and that a verdict is on what was seen."""

from uuid import UUID

from psycopg import errors

from depot_api import events
from depot_api.changelists import service as changelists
from depot_api.changelists.models import Changelist, ChangelistStatus
from depot_api.database.pool import Transaction
from depot_api.events import EventKind
from depot_api.idempotency import once
from depot_api.identity.actor import Actor
from depot_api.paths import broken_rule, path_key
from depot_api.permissions import service as permissions
from depot_api.permissions.models import PathAccess
from depot_api.preconditions import refuse_stale_match, require_match
from depot_api.problems import ChangelistClosed, Conflict, Forbidden, Invalid, InvalidPath, ProblemError
from depot_api.projects import service as projects
from depot_api.projects.models import ProjectRole
from depot_api.reviews import queries
from depot_api.reviews.models import Comment, CommentCreate, Decision, Review, Verdict
from depot_api.wire import NIL, Page, decode_uuid_cursor, encode_cursor


async def request_review(actor: Actor, changelist_id: UUID, usernames: list[str], if_match: str | None) -> Changelist:
    """The author asks; from then on the changelist is pending_review, and its items may still be put right."""
    async with actor.transaction() as tx:
        changelist = await changelists.open_changelist(tx, changelist_id, even_of_merge=True)
        refuse_stale_match(if_match, str(changelist.revision))
        if changelist.items_count == 0:
            raise Conflict("There is nothing to review: the changelist has no items.")
        await _ask(tx, changelist, usernames)
        await changelists.put_under_review(tx, changelist_id)
        payload = {"changelist_id": str(changelist_id), "reviewers": usernames}
        await events.record(tx, changelist.project_id, EventKind.REVIEW_REQUESTED, actor.user_id, payload)
        return await changelists.readable_changelist(tx, changelist_id)


async def _ask(tx: Transaction, changelist: Changelist, usernames: list[str]) -> None:
    found = {
        row["username"].lower(): row["id"]
        for row in await queries.reviewers(tx, changelist.project_id, usernames)
        if row["id"] != changelist.author_id
    }
    unfit = [name for name in usernames if name.lower() not in found]
    if unfit:
        raise Invalid(
            f"{unfit[0]!r} cannot review this: reviewers are other members of the project, reviewer or above.",
            errors=[ProblemError(detail=name, pointer=f"/reviewers/{usernames.index(name)}") for name in unfit],
        )
    await queries.ask(tx, changelist.project_id, changelist.id, sorted(found.values()))


async def decide(actor: Actor, changelist_id: UUID, decision: Decision, if_match: str | None) -> Review:
    """On the state that the reviewer has seen: raises PreconditionRequired or StalePrecondition for another one."""
    async with actor.transaction() as tx:
        await queries.hold_for_verdict(tx, changelist_id)
        changelist = await changelists.readable_changelist(tx, changelist_id)
        await projects.writable_project(tx, changelist.project_id, ProjectRole.REVIEWER)
        if changelist.author_id == actor.user_id:
            raise Forbidden("Nobody reviews their own changelist. Ask a colleague.")
        if changelist.status is not ChangelistStatus.PENDING_REVIEW:
            raise ChangelistClosed(f"The changelist is {changelist.status}; its author has to ask for a review first.")
        require_match(if_match, str(changelist.revision))
        try:
            row = await queries.decide(
                tx, changelist.project_id, changelist_id, actor.user_id, decision.verdict, decision.comment
            )
        except errors.RestrictViolation:
            raise ChangelistClosed("The changelist has just been submitted or abandoned.") from None
        review = Review.model_validate(row)
        if review.verdict is not Verdict.PENDING:
            payload = {"changelist_id": str(changelist_id), "verdict": review.verdict}
            await events.record(tx, changelist.project_id, EventKind.REVIEW_DECIDED, actor.user_id, payload)
    return review


async def list_reviews(
    actor: Actor, project_id: UUID | None, changelist_id: UUID | None, limit: int, cursor: str | None
) -> Page[Review]:
    """Newest first, of every project that the asker sees."""
    before = decode_uuid_cursor(cursor)
    async with actor.transaction() as tx:
        if project_id:
            await projects.readable_project(tx, project_id)
        if changelist_id:
            await changelists.readable_changelist(tx, changelist_id)
        rows = await queries.reviews(tx, project_id, changelist_id, before, limit)
    return _page([Review.model_validate(row) for row in rows], limit)


async def pending_reviews(actor: Actor, limit: int, cursor: str | None) -> Page[Review]:
    """What waits for the asker, oldest first."""
    after = decode_uuid_cursor(cursor) or NIL
    async with actor.transaction() as tx:
        rows = await queries.pending(tx, actor.user_id, after, limit)
    return _page([Review.model_validate(row) for row in rows], limit)


def _page(items: list[Review], limit: int) -> Page[Review]:
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)


async def comment(actor: Actor, changelist_id: UUID, wanted: CommentCreate, idempotency_key: str | None) -> Comment:
    async def create() -> Comment:
        changelist = await changelists.readable_changelist(tx, changelist_id)
        await projects.writable_project(tx, changelist.project_id, ProjectRole.REVIEWER)
        if wanted.path is not None:
            named = [(wanted.path, path_key(wanted.path), PathAccess.READ)]
            await permissions.refuse_forbidden(tx, changelist.project_id, named, "/path")
        row = await queries.insert_comment(
            tx, changelist.project_id, changelist_id, actor.user_id, wanted.path, wanted.body
        )
        payload = {"changelist_id": str(changelist_id)}
        await events.record(tx, changelist.project_id, EventKind.REVIEW_COMMENTED, actor.user_id, payload)
        return Comment.model_validate(row)

    if wanted.path is not None and (rule := broken_rule(wanted.path, is_new=False)):
        broken = ProblemError(detail=f"{wanted.path!r} {rule}", pointer="/path")
        raise InvalidPath(broken.detail, errors=[broken])
    async with actor.transaction() as tx:
        request = f"comment changelist {changelist_id} {wanted.model_dump_json()}"
        return await once(tx, actor.user_id, idempotency_key, request, Comment, create)


async def list_comments(actor: Actor, changelist_id: UUID, limit: int, cursor: str | None) -> Page[Comment]:
    """Oldest first."""
    after = decode_uuid_cursor(cursor) or NIL
    async with actor.transaction() as tx:
        await changelists.readable_changelist(tx, changelist_id)
        rows = await queries.comments(tx, changelist_id, after, limit)
    items = [Comment.model_validate(row) for row in rows]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(items) == limit else None)
