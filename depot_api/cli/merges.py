"""depot merge, resolve, merges"""

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from uuid import UUID

import typer

from depot_api.cli.credentials import connect
from depot_api.cli.output import LISTED, AsJson, ExitCode, counted, note, progress_bars, shortened, show, table
from depot_api.cli.places import ProjectOption, choose_project
from depot_api.client.depot import DepotClient
from depot_api.client.files import current_stat
from depot_api.client.models import (
    BranchMerge,
    ConflictSide,
    JobStatus,
    JobType,
    MergeConflict,
    MergeJob,
    MergePlan,
    MergeStatus,
    PlannedPath,
    Resolution,
)
from depot_api.client.problems import LocalFileError
from depot_api.client.upload import Candidate, Uploader
from depot_api.paths import path_key

HERE = Path()
POLL_SECONDS = 0.25
LOOKUPS_AT_ONCE = 8  # the client's connections
MergeId = Annotated[UUID, typer.Argument(metavar="MERGE", help="A merge's id; `depot merges` lists them.")]


def merge(
    source: Annotated[str, typer.Argument(help="Branch to take from, by name or id.")],
    target: Annotated[str, typer.Argument(help="Branch to merge into, by name or id.")],
    project: ProjectOption = None,
    at: Annotated[int | None, typer.Option("--at", min=1, help="Changelist of the source. Default: newest.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Why; becomes the changelist's description.")] = "",
    preview: Annotated[bool, typer.Option("--preview", help="Only say what it would do.")] = False,
    no_submit: Annotated[
        bool, typer.Option("--no-submit", help="Stage the result, and land it later with `depot merges --submit`.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has landed, or waits for people.")] = False,
    timeout_seconds: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Merge one branch into another, as one changelist. What both changed waits for `depot resolve`.

    The exit code is 1 with --preview when there would be conflicts, and with --wait when it has not landed; it is 3
    when it was not through within --timeout.

    Example: depot merge feature main --project Skyfall -m "Capes" --wait
    """
    if preview and (no_submit or wait):
        raise typer.BadParameter("--preview begins nothing: leave --no-submit and --wait out.")
    with connect() as depot:
        of, _ = choose_project(depot, project, HERE)
        source_id, target_id = (depot.find_branch(of.id, name).id for name in (source, target))
        if preview:
            plan = depot.preview_merge(of.id, source_id, target_id, source_at=at)
            show(as_json, plan, _plan_lines(plan))
            raise typer.Exit(ExitCode.PROBLEM if plan.conflicts_count else ExitCode.OK)
        made = depot.create_merge(of.id, source_id, target_id, source_at=at, description=message, submit=not no_submit)
        progress = _wait(depot, made.id, timeout_seconds) if wait else _look(depot, made.id)
    show(as_json, {"merge": progress.merge, "jobs": progress.jobs}, _progress_lines(progress, made))
    if wait:
        raise typer.Exit(progress.exit_code)


def merges(
    project: ProjectOption = None,
    status: Annotated[
        str, typer.Option("--status", help="Only these, with commas between: pending, conflicted, merged, cancelled.")
    ] = "",
    submit: Annotated[UUID | None, typer.Option("--submit", help="Land this merge as soon as nothing is open.")] = None,
    cancel: Annotated[UUID | None, typer.Option("--cancel", help="Give this merge up; nothing stays staged.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a project's merges, newest first; or land or cancel one.

    Example: depot merges --project Skyfall --status pending,conflicted
    """
    if submit is not None and cancel is not None:
        raise typer.BadParameter("--submit and --cancel are two different things: give one of them.")
    with connect() as depot:
        if submit is not None:
            job = depot.add_merge_job(submit, JobType.SUBMIT_GATE)
            show(as_json, {"job": job}, [f"Merge {submit} lands as soon as nothing is open. Its gate is {job.status}."])
            return
        if cancel is not None:
            show(as_json, {"merge": depot.cancel_merge(cancel)}, [f"Cancelled merge {cancel}."])
            return
        of, _ = choose_project(depot, project, HERE)
        found = list(depot.merges(of.id, _statuses(status)))
        branches = {} if as_json else {one.id: one.name for one in depot.branches(of.id)}
    header = ("ID", "STATUS", "SINCE", "WHO", "FROM", "INTO", "PATHS", "OPEN", "WHAT")
    rows = [_row(one, branches) for one in found]
    show(as_json, {"merges": found}, table(header, rows) if rows else ["No merges."])


def resolve(
    merge: MergeId,
    path: Annotated[str | None, typer.Argument(help="The conflict's path in the depot. Default: all.")] = None,
    source: Annotated[bool, typer.Option("--source", help="Take what the source has.")] = False,
    target: Annotated[bool, typer.Option("--target", help="Keep what the target has.")] = False,
    with_file: Annotated[
        Path | None, typer.Option("--with", exists=True, dir_okay=False, help="Take this file, a version of your own.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option("--pattern", help="All that have no choice yet and match, as Content/Hero/**.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the choice.")] = "",
    open_both: Annotated[bool, typer.Option("--open", help="Fetch both versions; on a terminal, open them.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a merge's conflicts and who changed what, or choose for one or for many.

    A choice can be changed until the merge lands. When all conflicts have one, the merge goes on by itself.

    Example: depot resolve 0198c6a2-7c1e-7d7e-a4b8-0242ac120002 Content/Hero/hero.uasset --source --reason "New rig"
    """
    choices = {Resolution.SOURCE: source, Resolution.TARGET: target, Resolution.SUPPLIED: with_file is not None}
    chosen = [choice for choice, given in choices.items() if given]
    if len(chosen) > 1:
        raise typer.BadParameter("--source, --target and --with are three different choices: give one of them.")
    if chosen and (path is None) == (pattern is None):
        raise typer.BadParameter("Say what the choice is for: a path, or --pattern '**' for all.")
    if pattern is not None and (not chosen or with_file is not None):
        raise typer.BadParameter("--pattern goes with --source or --target.")
    if open_both and (path is None or chosen):
        raise typer.BadParameter("--open needs the path of one conflict, and no choice.")
    with connect() as depot:
        if pattern is not None:
            _choose_many(depot, merge, pattern, chosen[0], reason, as_json)
        elif chosen:
            _choose_one(depot, merge, path or "", chosen[0], with_file, reason, as_json)
        elif open_both:
            _open(depot, merge, path or "", as_json)
        else:
            _list(depot, merge, path, as_json)


# Merging ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Progress:
    """How a merge stands. Settled: nothing more happens without people."""

    merge: BranchMerge
    jobs: list[MergeJob]

    @property
    def failed(self) -> list[MergeJob]:
        return [job for job in self.jobs if job.status is JobStatus.FAILED]

    @property
    def is_settled(self) -> bool:
        if self.failed or self.merge.status in (MergeStatus.MERGED, MergeStatus.CANCELLED):
            return True
        at_work = {job.job_type for job in self.jobs if job.status in (JobStatus.QUEUED, JobStatus.RUNNING)}
        # The gate of a merge with conflicts waits for choices.
        return not at_work - ({JobType.SUBMIT_GATE} if self.merge.status is MergeStatus.CONFLICTED else set())

    @property
    def exit_code(self) -> ExitCode:
        if not self.is_settled:
            return ExitCode.UNKNOWN
        staged = self.merge.status is MergeStatus.PENDING and not self.failed
        return ExitCode.OK if staged or self.merge.status is MergeStatus.MERGED else ExitCode.PROBLEM


def _look(depot: DepotClient, merge_id: UUID) -> _Progress:
    jobs = depot.merge_jobs(merge_id)  # before the merge: a job that is done has left its mark there
    return _Progress(depot.merge(merge_id), jobs)


def _wait(depot: DepotClient, merge_id: UUID, timeout_seconds: float) -> _Progress:
    deadline = time.monotonic() + timeout_seconds
    while not (progress := _look(depot, merge_id)).is_settled and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return progress


def _plan_lines(plan: MergePlan) -> Iterator[str]:
    if plan.conflicts:
        yield f"{counted(plan.conflicts_count, 'conflict')}:"
        yield from shortened([f"  {one.kind:<12}  {one.path}" for one in plan.conflicts])
    yield from shortened([_planned_line(one) for one in plan.paths])
    yield f"{counted(plan.paths_count, 'path')} would change; both sides had made the same of {plan.same_count}."


def _planned_line(planned: PlannedPath) -> str:
    moved = f" from {planned.moved_from}" if planned.moved_from else ""
    return f"  {planned.action:<9}  {planned.path}{moved}"


def _progress_lines(progress: _Progress, made: BranchMerge) -> Iterator[str]:
    merge = progress.merge
    yield from (f"{job.job_type} failed: {job.error}" for job in progress.failed)
    if merge.status is MergeStatus.MERGED:
        yield f"Merged as changelist {merge.landed_no}: {counted(merge.paths_count, 'path')}."
    elif merge.status is MergeStatus.CONFLICTED:
        yield f"{counted(merge.unresolved_count, 'conflict')} to resolve: depot resolve {merge.id}"
    elif merge.status is MergeStatus.CANCELLED:
        yield f"Merge {merge.id} was cancelled."
    elif progress.is_settled and not progress.failed:
        yield f"Staged {counted(merge.paths_count, 'path')}. To land them: depot merges --submit {merge.id}"
    else:
        yield f"Merge {made.id} has begun. How it stands: depot merges"


def _statuses(status: str) -> list[MergeStatus]:
    try:
        return [MergeStatus(name.strip()) for name in status.split(",") if name.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"--status: {error}. Known are {', '.join(MergeStatus)}.") from None


def _row(one: BranchMerge, branches: dict[UUID, str]) -> tuple[str, ...]:
    return (
        str(one.id),
        one.status,
        f"{one.created_at:%Y-%m-%d %H:%M}",
        one.creator,
        f"{branches.get(one.source_branch_id, one.source_branch_id)}@{one.source_at}",
        str(branches.get(one.target_branch_id, one.target_branch_id)),
        str(one.paths_count),
        str(one.unresolved_count),
        one.description.partition("\n")[0],
    )


# Conflicts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Author:
    """Who made a side's version, and in which changelist."""

    name: str
    changelist_no: int


class _Authors:
    """Of the versions in conflict, each asked for when it is needed."""

    def __init__(self, depot: DepotClient, project_id: UUID) -> None:
        self._depot = depot
        self._project_id = project_id
        self._names = {one.user_id: one.username for one in depot.members(project_id)}

    def of(self, conflict: MergeConflict) -> dict[str, _Author]:
        """By side; a side that deleted the path has none."""
        sides = {"source": conflict.source, "target": conflict.target}
        found = {name: self._of_side(side) for name, side in sides.items() if side}
        return {name: author for name, author in found.items() if author}

    def _of_side(self, side: ConflictSide) -> _Author | None:
        asset = self._depot.find_asset(self._project_id, side.path)
        for version in self._depot.asset_versions(asset.id):
            if version.number == side.version:
                return _Author(self._names.get(version.author_id, str(version.author_id)), version.changelist_no)
        return None


def _list(depot: DepotClient, merge_id: UUID, path: str | None, as_json: bool) -> None:
    about = depot.merge(merge_id)
    found = [_find(depot, merge_id, path)] if path is not None else list(depot.conflicts(merge_id))
    authors = _Authors(depot, about.project_id)
    named = found if as_json else found[:LISTED]
    with ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        who = list(pool.map(authors.of, named))
    if as_json:
        show(as_json, {"merge": about, "conflicts": list(map(_document, named, who))}, [])
        return
    lines = [line for one, by in zip(named, who, strict=True) for line in _conflict_lines(one, by)]
    more = [f"  … and {len(found) - LISTED} more"] if len(found) > LISTED else []
    summary = f"{counted(len(found), 'conflict')}, {about.unresolved_count} to resolve."
    show(as_json, None, [*lines, *more, summary])


def _document(conflict: MergeConflict, who: dict[str, _Author]) -> dict[str, Any]:
    authors = {name: {"name": one.name, "changelist_no": one.changelist_no} for name, one in who.items()}
    return conflict.model_dump(mode="json") | {"authors": authors}


def _conflict_lines(conflict: MergeConflict, who: dict[str, _Author]) -> Iterator[str]:
    yield f"{conflict.kind}  {conflict.path}"
    for name, side in (("source", conflict.source), ("target", conflict.target)):
        yield f"    {name}: {_side_line(conflict.path, side, who.get(name))}"
    if conflict.resolution:
        yield f"    chosen: {conflict.resolution}{f' ({conflict.reason})' if conflict.reason else ''}"


def _side_line(path: str, side: ConflictSide | None, author: _Author | None) -> str:
    if side is None:
        return "deleted it"
    moved = f"{side.path} " if side.path != path else ""
    by = f" by {author.name} in changelist {author.changelist_no}" if author else ""
    return f"{moved}#{side.version}{by}"


def _find(depot: DepotClient, merge_id: UUID, path: str) -> MergeConflict:
    for conflict in depot.conflicts(merge_id):
        if path_key(conflict.path) == path_key(path):
            return conflict
    raise typer.BadParameter(f"{path} is not in conflict; `depot resolve {merge_id}` lists what is.")


def _choose_one(
    depot: DepotClient,
    merge_id: UUID,
    path: str,
    resolution: Resolution,
    file: Path | None,
    reason: str,
    as_json: bool,
) -> None:
    conflict = _find(depot, merge_id, path)
    sha256 = _send(depot, depot.merge(merge_id).project_id, file) if file else None
    resolved = depot.resolve_conflict(conflict.id, resolution, sha256=sha256, reason=reason)
    now = depot.merge(merge_id)
    lines = [f"{resolved.path}: {resolution}.", _left_line(now.unresolved_count)]
    show(as_json, {"conflict": resolved, "unresolved_count": now.unresolved_count}, lines)


def _choose_many(
    depot: DepotClient, merge_id: UUID, pattern: str, resolution: Resolution, reason: str, as_json: bool
) -> None:
    result = depot.resolve_conflicts(merge_id, pattern, resolution, reason=reason)
    done = f"{counted(result.resolved_count, 'conflict')}: {resolution}."
    show(as_json, result, [done, _left_line(result.unresolved_count)])


def _left_line(unresolved_count: int) -> str:
    left = f"{counted(unresolved_count, 'conflict')} left to resolve."
    return left if unresolved_count else "None is left: the merge goes on by itself."


def _send(depot: DepotClient, project_id: UUID, named: Path) -> str:
    file = named.resolve()
    stat = current_stat(file)
    if stat is None:
        raise LocalFileError(f"{file} is not a file that can be read.")
    with progress_bars() as progress:
        uploader = Uploader(depot, project_id, file.parent, frozenset(), progress)
        [sent] = uploader.upload([Candidate(file.name, stat)])
    return sent.seen[file.name].sha256


def _open(depot: DepotClient, merge_id: UUID, path: str, as_json: bool) -> None:
    """The files stay: the program that shows them has them open."""
    conflict = _find(depot, merge_id, path)
    project_id = depot.merge(merge_id).project_id
    directory = Path(tempfile.mkdtemp(prefix="depot-merge-"))
    sides = {"source": conflict.source, "target": conflict.target}
    fetched = {name: _fetch(depot, project_id, directory, name, side) for name, side in sides.items() if side}
    show(as_json, {name: str(file) for name, file in fetched.items()}, [f"{n}: {file}" for n, file in fetched.items()])
    if as_json or not sys.stdout.isatty():
        return
    for file in fetched.values():
        if typer.launch(str(file)) != 0:
            note(f"No program opens {file.name} here. It lies in {directory}.")


def _fetch(depot: DepotClient, project_id: UUID, directory: Path, side_name: str, side: ConflictSide) -> Path:
    name = PurePosixPath(side.path)
    file = directory / f"{name.stem}@{side_name}{name.suffix}"
    try:
        with file.open("xb") as written:
            written.writelines(depot.object_content(project_id, side.sha256))
    except OSError as error:
        raise LocalFileError(f"{file} cannot be written: {error.strerror}.") from error
    return file
