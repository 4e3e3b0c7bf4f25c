"""depot changes, describe, review …, undo, abandon"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import AsJson, counted, shortened, show, table
from depot_api.cli.places import ProjectOption, choose_branch, choose_changelist, choose_project
from depot_api.client.depot import DepotClient
from depot_api.client.models import Changelist, ChangelistItem, ChangelistStatus, Comment, Project, Review, Verdict

reviews = typer.Typer(no_args_is_help=True, help="Reviews: ask for one, give your verdict, comment.")
HERE = Path()
ChangelistArgument = Annotated[
    str, typer.Argument(metavar="CHANGELIST", help="A changelist's number, or its id; `depot changes` lists both.")
]
Message = Annotated[str, typer.Option("--message", "-m", help="What you have to say.")]
Revision = Annotated[
    int | None,
    typer.Option(
        min=1, help="What you have looked at, as `depot describe` shows it: refused when it has changed since."
    ),
]


def changes(
    project: ProjectOption = None,
    branch: Annotated[str | None, typer.Option("--branch", "-b", help="Branch, by name or id. Default: all.")] = None,
    status: Annotated[ChangelistStatus | None, typer.Option(help="Default: all but abandoned ones.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only yours.")] = False,
    path: Annotated[str | None, typer.Option(help="Only submitted ones that changed this path, on one branch.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List changelists, pending and submitted, newest first.

    Example: depot changes --project Skyfall --mine --status open
    """
    if path is not None and status not in (None, ChangelistStatus.SUBMITTED):
        raise typer.BadParameter("--path finds submitted changelists only: leave --status out.")
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        author_id = depot.me().id if mine else None
        if path is not None:
            _, on_branch = choose_branch(depot, project, branch, HERE)
            matches = depot.branch_history(on_branch.id, path)
        else:
            branch_id = depot.find_branch(of.id, branch).id if branch else None
            matches = depot.changelists(of.id, branch_id=branch_id, status=status, author_id=author_id)
        wanted = (one for one in matches if _is_wanted(one, status, author_id))
        found = list(islice(wanted, limit))
        names = _Names.of(depot, of) if found and not as_json else _Names({}, {})
    rows = [_row(one, names) for one in found]
    header = ("CHANGELIST", "STATUS", "WHEN", "WHO", "BRANCH", "ITEMS", "WHAT")
    show(as_json, {"changelists": found}, table(header, rows) if rows else ["No changelists."])


def describe(changelist: ChangelistArgument, project: ProjectOption = None, as_json: AsJson = False) -> None:
    """Show a changelist with its items, reviews and comments.

    Example: depot describe 1200 --project Skyfall
    """
    with connect() as depot:
        found = choose_changelist(depot, changelist, project, HERE)
        items = list(depot.changelist_items(found.id))
        decided = list(depot.reviews(changelist_id=found.id))
        said = list(depot.comments(found.id))
        names = _Names({}, {}) if as_json else _Names.of(depot, depot.project(found.project_id))
    document = {"changelist": found, "items": items, "reviews": decided, "comments": said}
    show(as_json, document, _describe_lines(found, names, items, decided, said))


def undo(
    changelist: ChangelistArgument,
    project: ProjectOption = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Why. Default: names the changelist that is undone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Open a changelist that undoes a submitted one. Nothing changes until that is submitted.

    Example: depot undo 1200 --project Skyfall
    """
    with connect() as depot:
        undone = choose_changelist(depot, changelist, project, HERE)
        made = depot.revert_changelist(undone.id, message)
    lines = [
        f"Opened changelist {made.id} with {counted(made.items_count, 'item')}, which undoes changelist {changelist}.",
        f"To do it: depot submit --changelist {made.id}",
    ]
    show(as_json, made, lines)


def abandon(changelist: ChangelistArgument, project: ProjectOption = None, as_json: AsJson = False) -> None:
    """Give up an open changelist of yours.

    Example: depot abandon 0198c6a2-7c1e-7d7e-a4b8-0242ac120002
    """
    with connect() as depot:
        found = choose_changelist(depot, changelist, project, HERE)
        depot.abandon_changelist(found.id)
    show(as_json, {"abandoned": found.id}, [f"Abandoned changelist {found.id}."])


@reviews.command("request")
def request_review(
    changelist: ChangelistArgument,
    reviewer: Annotated[
        list[str] | None,
        typer.Option("--reviewer", "-r", help="Whom to ask; can be repeated. Default: whoever may approve there."),
    ] = None,
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a review of an open changelist of yours.

    Example: depot review request 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 --reviewer ada
    """
    with connect() as depot:
        found = choose_changelist(depot, changelist, project, HERE)
        asked = depot.request_review(found.id, reviewer or ())
    whom = ", ".join(reviewer) if reviewer else "whoever may approve it"
    show(as_json, asked, [f"Changelist {asked.id} waits for {whom}."])


@reviews.command("approve")
def approve(
    changelist: ChangelistArgument,
    message: Message = "",
    revision: Revision = None,
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Approve a changelist, as you have seen it.

    Example: depot review approve 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 --revision 3 -m "Looks right"
    """
    _decide(changelist, project, Verdict.APPROVED, message, revision, as_json)


@reviews.command("reject")
def reject(
    changelist: ChangelistArgument,
    message: Message = "",
    revision: Revision = None,
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask for changes of a changelist.

    Example: depot review reject 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 -m "The cape clips"
    """
    _decide(changelist, project, Verdict.CHANGES_REQUESTED, message, revision, as_json)


@reviews.command("pending")
def pending(as_json: AsJson = False) -> None:
    """List the reviews that wait for you, oldest first.

    Example: depot review pending
    """
    with connect() as depot:
        found = list(depot.pending_reviews())
        waiting = [] if as_json else [depot.changelist(one.changelist_id) for one in found]
    rows = [(str(one.id), f"{one.created_at:%Y-%m-%d %H:%M}", _first_line(one)) for one in waiting]
    lines = table(("CHANGELIST", "OPENED", "WHAT"), rows) if rows else ["No review waits for you."]
    show(as_json, {"reviews": found}, lines)


@reviews.command("comment")
def comment(
    changelist: ChangelistArgument,
    message: Message,
    path: Annotated[str | None, typer.Option(help="The item that it is about.")] = None,
    project: ProjectOption = None,
    as_json: AsJson = False,
) -> None:
    """Comment on a changelist, or on one of its items.

    Example: depot review comment 1200 --path Content/Hero/hero.uasset -m "Which rig?" --project Skyfall
    """
    with connect() as depot:
        found = choose_changelist(depot, changelist, project, HERE)
        said = depot.add_comment(found.id, message, path)
    show(as_json, said, [f"Commented on changelist {found.number or found.id}."])


def _decide(
    changelist: str, project: str | None, verdict: Verdict, message: str, revision: int | None, as_json: bool
) -> None:
    with connect() as depot:
        found = choose_changelist(depot, changelist, project, HERE)
        seen = found.revision if revision is None else revision
        review = depot.decide_review(found.id, verdict, message, revision=seen)
    done = "Approved" if verdict is Verdict.APPROVED else "Asked for changes of"
    show(as_json, review, [f"{done} changelist {found.id}."])


@dataclass(frozen=True, slots=True)
class _Names:
    """What people call users and branches of a project; an id for who is not a member any more."""

    users: dict[UUID, str]
    branches: dict[UUID, str]

    @classmethod
    def of(cls, depot: DepotClient, project: Project) -> "_Names":
        me = depot.me()
        members = {one.user_id: one.username for one in depot.members(project.id)}
        return cls({me.id: me.username} | members, {one.id: one.name for one in depot.branches(project.id)})

    def author(self, changelist: Changelist) -> str:
        return self.users.get(changelist.author_id, str(changelist.author_id)) if changelist.author_id else ""

    def branch(self, changelist: Changelist) -> str:
        return self.branches.get(changelist.branch_id, str(changelist.branch_id)) if changelist.branch_id else ""


def _is_wanted(changelist: Changelist, status: ChangelistStatus | None, author_id: UUID | None) -> bool:
    if author_id is not None and changelist.author_id != author_id:
        return False
    return status is not None or changelist.status is not ChangelistStatus.ABANDONED


def _row(changelist: Changelist, names: _Names) -> tuple[str, ...]:
    return (
        str(changelist.number or changelist.id),
        changelist.status,
        f"{changelist.submitted_at or changelist.created_at:%Y-%m-%d %H:%M}",
        names.author(changelist),
        names.branch(changelist),
        str(changelist.items_count),
        _first_line(changelist),
    )


def _first_line(changelist: Changelist) -> str:
    return changelist.description.partition("\n")[0]


def _describe_lines(
    changelist: Changelist,
    names: _Names,
    items: list[ChangelistItem],
    decided: Iterable[Review],
    said: Iterable[Comment],
) -> Iterator[str]:
    when = f"{changelist.submitted_at or changelist.created_at:%Y-%m-%d %H:%M:%S %Z}"
    branch = f" on {names.branch(changelist)}" if changelist.branch_id else ""
    yield f"Changelist {changelist.number or changelist.id} by {names.author(changelist)}{branch}"
    unfinished = changelist.status in (ChangelistStatus.OPEN, ChangelistStatus.PENDING_REVIEW)
    yield f"{changelist.status}, {when}" + (f", revision {changelist.revision}" if unfinished else "")
    yield from (
        ("", *(f"    {line}" for line in changelist.description.splitlines()), "") if changelist.description else ()
    )
    yield f"{counted(len(items), 'item')}:"
    yield from shortened([_item_line(one) for one in items])
    yield from (_review_line(one) for one in decided)
    yield from (_comment_line(one) for one in said)


def _item_line(item: ChangelistItem) -> str:
    base = f" (from #{item.base_version})" if item.base_version else ""
    moved = f" from {item.moved_from}" if item.moved_from else ""
    validation = f", validation {item.validation}" if item.validation != "pending" else ""
    return f"  {item.action:<9}  {item.path}{moved}{base}{validation}"


def _review_line(review: Review) -> str:
    words = f": {review.comment}" if review.comment else ""
    return f"Review by {review.reviewer}: {review.verdict}{words}"


def _comment_line(comment: Comment) -> str:
    about = f" on {comment.path}" if comment.path else ""
    return f"{comment.author}{about}, {comment.created_at:%Y-%m-%d %H:%M %Z}: {comment.body}"
