"""`DepotClient`: the depot's routes as typed methods."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote
from uuid import UUID, uuid4

import urllib3
from pydantic import TypeAdapter, ValidationError

from depot_api.blobstore.pack import MEDIA_TYPE
from depot_api.client.http import PATIENT, Body, Patience, Transport
from depot_api.client.models import (
    Answer,
    ApiToken,
    Asset,
    AssetVersion,
    Branch,
    BranchMerge,
    Changelist,
    ChangelistItem,
    ChangelistStatus,
    ClaimableJob,
    ClaimedJob,
    Comment,
    ConflictsResolved,
    CreatedToken,
    CreatedWebhook,
    Delivery,
    DeliveryStatus,
    DiffRow,
    FileChange,
    FoundAsset,
    Health,
    Item,
    JobStep,
    JobType,
    Label,
    Lock,
    Manifest,
    Member,
    MergeConflict,
    MergeJob,
    MergePlan,
    MergeStatus,
    Obliteration,
    ObliterationPlan,
    PathRule,
    Project,
    ProjectArchive,
    ProjectChanges,
    ProjectRole,
    Resolution,
    Review,
    Shelf,
    ShelfItem,
    Storage,
    StorageSnapshot,
    StoredObject,
    StudioRole,
    Submitted,
    Token,
    TokenScope,
    TypemapRule,
    Unshelved,
    User,
    UserChanges,
    Verdict,
    Version,
    Webhook,
    Workspace,
    WorkspaceFile,
    WorkspaceSync,
)
from depot_api.client.problems import ConnectionLost, DamagedContent, ProblemError, UnexpectedAnswer

MISSING_LIMIT = 10_000  # hashes in one question
ITEMS_LIMIT = 10_000  # items in one request
FETCH_LIMIT = 1_000  # objects in one streamed answer
PAGE_LIMIT = 1_000
LOCKS_LIMIT = 1_000  # paths in one request
SERVICE_UNAVAILABLE = 503
NOT_FOUND = 404
PARTIAL_CONTENT = 206
GZIP_WINDOW = 31  # zlib's code for a gzip member
MANIFEST_ATTEMPTS = 3
ANY_STATE = "*"  # for a changelist that nobody but its author can change

AnswerType = TypeVar("AnswerType", bound=Answer)
_STORED_OBJECTS = TypeAdapter(list[StoredObject])
_LOCKS = TypeAdapter(list[Lock])
_TYPEMAP = TypeAdapter(list[TypemapRule])
_PATH_RULES = TypeAdapter(list[PathRule])
_MERGE_JOBS = TypeAdapter(list[MergeJob])
_CLAIMABLE_JOBS = TypeAdapter(list[ClaimableJob])
# A lock's id is of one holder's lease, so whatever its state is, it is the lock that is meant.
_ANY = {"If-Match": "*"}


@dataclass(frozen=True, slots=True)
class ObjectStream:
    """A content on its way: its bytes from `start` on, as a gzip member if `is_gzip`."""

    start: int
    is_gzip: bool
    chunks: Iterator[bytes]


class DepotClient:
    """A depot, as one user sees it. Thread-safe; use it as a context manager or call `close`.

    Every method raises ProblemError when the depot refuses, Unreachable, ConnectionLost or
    OutcomeUnknown when the connection fails, and UnexpectedAnswer when something else answers.

        with DepotClient("http://127.0.0.1:8000", token) as depot:
            project = depot.find_project("Skyfall")
            branch = depot.find_branch(project.id, "main")
            print(len(depot.manifest(branch.id).files), "files as of changelist", branch.head_no)
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        connections: int = 8,
        patience: Patience = PATIENT,
        origin: str | None = None,
    ) -> None:
        """`connections` is how many are kept open, one for each thread that works at the same time.

        `patience` is for those who would rather be told soon than wait. `origin` begins the id of every request, up
        to 60 letters, digits, dots, underscores and hyphens: the depot's log and audit log then tell what came of it.
        """
        self._http = Transport(url, token, connections, patience, origin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return self._http.url

    def close(self) -> None:
        self._http.close()

    # Identity and health

    def sign_in(self, username: str, password: str) -> Token:
        """Get an access token for a password, and use it from now on."""
        document = {"username": username, "password": password}
        token = self._ask(Token, "POST", "/auth/token", document=document, repeatable=True)
        self._http.token = token.access_token
        return token

    def me(self) -> User:
        return self._ask(User, "GET", "/auth/me")

    def health(self) -> Health:
        """Whether the depot is ready, and what is wrong when it is not (a 503 is an answer here)."""
        try:
            return self._ask(Health, "GET", "/health", patient=False)
        except ProblemError as problem:
            if problem.status != SERVICE_UNAVAILABLE or "checks" not in problem.extra:
                raise
            return Health(status="unavailable", checks=problem.extra["checks"])

    def change_password(self, current_password: str, new_password: str) -> None:
        document = {"current_password": current_password, "new_password": new_password}
        self._http.request("POST", "/auth/password", document=document)

    def create_token(self, name: str, scope: TokenScope, expires_in_days: int) -> CreatedToken:
        """An API token for the user; the depot shows it this once."""
        document = {"name": name, "scope": scope, "expires_in_days": expires_in_days}
        return self._create(CreatedToken, "/auth/tokens", document)

    def tokens(self, user_id: UUID | None = None) -> Iterator[ApiToken]:
        """One's own API tokens, or for an admin those of a user."""
        return self._pages(ApiToken, f"/users/{user_id}/tokens" if user_id else "/auth/tokens", {})

    def revoke_token(self, token_id: UUID, user_id: UUID | None = None) -> None:
        """Revoke one's own API token, or as an admin a user's."""
        path = f"/users/{user_id}/tokens" if user_id else "/auth/tokens"
        self._http.request("DELETE", f"{path}/{token_id}")

    # Users: for admins

    def create_user(
        self, username: str, password: str, *, display_name: str = "", studio_role: StudioRole = StudioRole.VIEWER
    ) -> User:
        document = {
            "username": username,
            "password": password,
            "display_name": display_name,
            "studio_role": studio_role,
        }
        return self._create(User, "/users", document)

    def users(self, name: str | None = None) -> Iterator[User]:
        """Every user, or those with this in their name."""
        return self._pages(User, "/users", {"name": name})

    def find_user(self, name_or_id: str) -> User:
        """A user by username or id. Raises ProblemError 404 when there is none."""
        if (user_id := _as_uuid(name_or_id)) is not None:
            return self._ask(User, "GET", f"/users/{user_id}")
        for user in self.users(name_or_id):
            if user.username.casefold() == name_or_id.casefold():
                return user
        raise _not_found(f"There is no user {name_or_id!r}; `depot user list` shows who there is.")

    def update_user(self, user_id: UUID, **changes: Unpack[UserChanges]) -> User:
        return self._ask(User, "PATCH", f"/users/{user_id}", document=changes, repeatable=True)

    def reset_password(self, user_id: UUID, password: str) -> None:
        document = {"password": password}
        self._http.request("POST", f"/users/{user_id}/password", document=document, repeatable=True)

    # Projects

    def create_project(self, name: str, description: str | None = None) -> Project:
        document = {"name": name} | ({"description": description} if description is not None else {})
        return self._create(Project, "/projects", document)

    def projects(self, name: str | None = None) -> Iterator[Project]:
        """Every project that the user may see, or the one of this name."""
        return self._pages(Project, "/projects", {"name": name})

    def project(self, project_id: UUID) -> Project:
        return self._ask(Project, "GET", f"/projects/{project_id}")

    def find_project(self, name_or_id: str) -> Project:
        """A project by name or id. Raises ProblemError 404 when the user sees none."""
        if (project_id := _as_uuid(name_or_id)) is not None:
            return self.project(project_id)
        for project in self.projects(name_or_id):
            if project.name.casefold() == name_or_id.casefold():
                return project
        raise _not_found(f"There is no project {name_or_id!r} that you may see; `depot project list` shows yours.")

    def members(self, project_id: UUID) -> Iterator[Member]:
        return self._pages(Member, f"/projects/{project_id}/members", {})

    def set_member(self, project_id: UUID, username: str, role: ProjectRole) -> Member:
        """Give a user a role in a project, in place of an earlier one."""
        document = {"username": username, "role": role}
        return self._ask(Member, "POST", f"/projects/{project_id}/members", document=document, repeatable=True)

    def remove_member(self, project_id: UUID, user_id: UUID) -> None:
        self._http.request("DELETE", f"/projects/{project_id}/members/{user_id}")

    def update_project(self, project_id: UUID, **changes: Unpack[ProjectChanges]) -> Project:
        return self._ask(Project, "PATCH", f"/projects/{project_id}", document=changes, repeatable=True)

    def archive_project(self, project_id: UUID, reason: str) -> ProjectArchive:
        """Let the project take no more changes, and keep a summary of what it holds."""
        return self._create(ProjectArchive, f"/projects/{project_id}/archive", {"reason": reason})

    def unarchive_project(self, project_id: UUID) -> Project:
        return self._ask(Project, "POST", f"/projects/{project_id}/unarchive")

    def archives(self, project_id: UUID) -> Iterator[ProjectArchive]:
        return self._pages(ProjectArchive, f"/projects/{project_id}/archives", {})

    def storage(self, project_id: UUID) -> Storage:
        """What the project's content takes now."""
        return self._ask(Storage, "GET", f"/projects/{project_id}/storage")

    def take_storage_snapshot(self, project_id: UUID) -> StorageSnapshot:
        """Count now, and keep it for today in place of an earlier count."""
        return self._ask(StorageSnapshot, "POST", f"/projects/{project_id}/storage/snapshots", repeatable=True)

    def storage_snapshots(self, project_id: UUID) -> Iterator[StorageSnapshot]:
        """One for each day that has one, newest first."""
        return self._pages(StorageSnapshot, f"/projects/{project_id}/storage/snapshots", {})

    def path_permissions(self, project_id: UUID) -> list[PathRule]:
        """In order: of the rules that match a path, the last one counts."""
        response = self._http.request("GET", f"/projects/{project_id}/path-permissions")
        return _understood(_PATH_RULES, _member(response, "rules"))

    def set_path_permissions(self, project_id: UUID, rules: Sequence[PathRule]) -> None:
        """The whole list takes the place of the one before."""
        document = {"rules": [rule.model_dump(mode="json") for rule in rules]}
        self._http.request("PUT", f"/projects/{project_id}/path-permissions", document=document, repeatable=True)

    # Webhooks

    def create_webhook(self, project_id: UUID, url: str, kinds: Sequence[str] = ()) -> CreatedWebhook:
        """Send events of these kinds (of every kind without any) to an address, signed with the answer's secret."""
        document = {"url": url, "kinds": list(kinds)}
        return self._create(CreatedWebhook, f"/projects/{project_id}/webhooks", document)

    def webhooks(self, project_id: UUID) -> Iterator[Webhook]:
        return self._pages(Webhook, f"/projects/{project_id}/webhooks", {})

    def delete_webhook(self, project_id: UUID, webhook_id: UUID) -> None:
        """With its deliveries, also those that are still pending."""
        self._http.request("DELETE", f"/projects/{project_id}/webhooks/{webhook_id}")

    def deliveries(
        self, project_id: UUID, webhook_id: UUID, status: DeliveryStatus | None = None
    ) -> Iterator[Delivery]:
        """Newest first."""
        return self._pages(Delivery, f"/projects/{project_id}/webhooks/{webhook_id}/deliveries", {"status": status})

    def replay_delivery(self, project_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery:
        """Send it again, also one that was given up."""
        path = f"/projects/{project_id}/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"
        return self._ask(Delivery, "POST", path)

    # Obliterations: for admins

    def obliterate(
        self,
        project_id: UUID,
        reason: str,
        *,
        asset_id: UUID | None = None,
        pattern: str | None = None,
        versions: Sequence[int] = (),
        dry_run: bool = True,
    ) -> ObliterationPlan:
        """Take the content of an asset, some versions of it or all paths that match, from history for good."""
        document: dict[str, Any] = {"reason": reason, "dry_run": dry_run}
        if asset_id is not None:
            document |= {"asset_id": str(asset_id), "versions": list(versions) or None}
        else:
            document |= {"pattern": pattern}
        return self._create(ObliterationPlan, f"/projects/{project_id}/obliterations", document)

    def obliterations(self, project_id: UUID) -> Iterator[Obliteration]:
        """Newest first."""
        return self._pages(Obliteration, f"/projects/{project_id}/obliterations", {})

    def cancel_obliteration(self, obliteration_id: UUID) -> Obliteration:
        """Everything can be read again."""
        return self._ask(Obliteration, "DELETE", f"/obliterations/{obliteration_id}")

    def complete_obliteration(self, obliteration_id: UUID) -> Obliteration:
        """Remove the bytes, when its time of grace is over."""
        return self._ask(Obliteration, "POST", f"/obliterations/{obliteration_id}/complete", repeatable=True)

    # Branches

    def create_branch(
        self,
        project_id: UUID,
        name: str,
        *,
        parent_id: UUID | None = None,
        parent_at: int | None = None,
        description: str | None = None,
    ) -> Branch:
        """A branch that begins as its parent as of changelist `parent_at` (its head when None)."""
        document: dict[str, Any] = {"project_id": str(project_id), "name": name}
        if parent_id is not None:
            document["parent_id"] = str(parent_id)
        if parent_at is not None:
            document["parent_at"] = parent_at
        if description is not None:
            document["description"] = description
        return self._create(Branch, "/branches", document)

    def branches(self, project_id: UUID, name: str | None = None) -> Iterator[Branch]:
        return self._pages(Branch, f"/projects/{project_id}/branches", {"name": name})

    def branch(self, branch_id: UUID) -> Branch:
        return self._ask(Branch, "GET", f"/branches/{branch_id}")

    def find_branch(self, project_id: UUID, name_or_id: str) -> Branch:
        """A branch of a project by name or id. Raises ProblemError 404 when there is none."""
        if (branch_id := _as_uuid(name_or_id)) is not None:
            return self.branch(branch_id)
        for branch in self.branches(project_id, name_or_id):
            if branch.name.casefold() == name_or_id.casefold():
                return branch
        raise _not_found(f"The project has no branch {name_or_id!r}; `depot branch list` shows what it has.")

    def update_branch(self, branch_id: UUID, **changes: Any) -> Branch:
        """Change `description`, `submit_role`, `require_review`, `require_validation`; others stay as they are."""
        return self._ask(Branch, "PATCH", f"/branches/{branch_id}", document=changes, repeatable=True)

    def branch_history(self, branch_id: UUID, path: str | None = None) -> Iterator[Changelist]:
        """Submitted changelists that a branch shows, newest first; those that changed `path`."""
        return self._pages(Changelist, f"/branches/{branch_id}/history", {"path": path})

    def diff(
        self,
        branch_id: UUID,
        *,
        against: UUID | None = None,
        from_point: int | str | None = None,
        to_point: int | str | None = None,
    ) -> Iterator[DiffRow]:
        """What changes from `against` (the branch itself when None) to the branch; points are changelists or labels."""
        query = {"against": against} | _point("from", "from_label", from_point) | _point("to", "to_label", to_point)
        return self._pages(DiffRow, f"/branches/{branch_id}/diff", query)

    def labels(self, project_id: UUID) -> Iterator[Label]:
        return self._pages(Label, f"/projects/{project_id}/labels", {})

    def set_label(self, project_id: UUID, name: str, branch_id: UUID, at: int | None = None) -> Label:
        """Make a label or move it, to changelist `at` of the branch (its head when None)."""
        document = {"branch_id": str(branch_id), "at": at}
        return self._ask(Label, "PUT", f"/projects/{project_id}/labels/{quote(name, safe='')}", document=document)

    def delete_label(self, project_id: UUID, name: str) -> None:
        self._http.request("DELETE", f"/projects/{project_id}/labels/{quote(name, safe='')}")

    def manifest(self, branch_id: UUID, at: int | None = None) -> Manifest:
        """Every path that lives on a branch as of changelist `at` (the head when None)."""
        for _ in range(MANIFEST_ATTEMPTS - 1):
            try:
                return self._manifest(branch_id, at)
            except ConnectionLost:
                continue
        return self._manifest(branch_id, at)

    # Assets

    def assets(self, project_id: UUID, prefix: str | None = None) -> Iterator[Asset]:
        """Assets in path order, those whose path begins with `prefix`."""
        return self._pages(Asset, "/assets", {"project_id": project_id, "prefix": prefix})

    def asset(self, asset_id: UUID) -> Asset:
        return self._ask(Asset, "GET", f"/assets/{asset_id}")

    def find_asset(self, project_id: UUID, path: str) -> Asset:
        """The asset at a path, in any case. Raises ProblemError 404 when there is none."""
        first = next(self.assets(project_id, path), None)  # a path comes before those that begin with it
        if first is not None and first.path.casefold() == path.casefold():
            return first
        raise _not_found(f"The project has no asset at {path!r}; `depot search --prefix` shows what it has.")

    def update_asset(self, asset_id: UUID, **changes: Any) -> Asset:
        """Replace `asset_type`, `tags` or `metadata`, or `add_tags` and `remove_tags`; others stay as they are."""
        return self._ask(Asset, "PATCH", f"/assets/{asset_id}", document=changes, repeatable=True)

    def search(
        self,
        project_id: UUID,
        *,
        branch_id: UUID | None = None,
        prefix: str | None = None,
        name: str | None = None,
        asset_type: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        author: str | None = None,
        changed_since: datetime | None = None,
        deleted: bool = False,
    ) -> Iterator[FoundAsset]:
        """Assets of a branch (the project's default when None) that match everything given, in path order."""
        query = {
            "branch_id": branch_id,
            "prefix": prefix,
            "name": name,
            "type": asset_type,
            "tag": list(tags) or None,
            "metadata": json.dumps(metadata) if metadata is not None else None,
            "author": author,
            "changed_since": changed_since.isoformat() if changed_since else None,
            "deleted": deleted,
        }
        return self._pages(FoundAsset, f"/projects/{project_id}/search", query)

    def asset_versions(self, asset_id: UUID) -> Iterator[AssetVersion]:
        """Versions of an asset on all branches, newest first."""
        return self._pages(AssetVersion, f"/assets/{asset_id}/versions", {})

    # Objects

    def missing(self, project_id: UUID, hashes: Sequence[str]) -> set[str]:
        """Which of these contents (at most MISSING_LIMIT) have to be sent to the project."""
        path = f"/projects/{project_id}/objects/missing"
        response = self._http.request("POST", path, document={"sha256": list(hashes)}, repeatable=True)
        return set(_member(response, "missing"))

    def put_object(self, project_id: UUID, sha256: str, body: Body) -> StoredObject:
        """Send one content. It is durable in the depot when this returns."""
        return self._ask(StoredObject, "PUT", f"/projects/{project_id}/objects/{sha256}", body=body)

    def put_pack(self, project_id: UUID, body: Body) -> list[StoredObject]:
        """Send many contents framed as a pack, all or nothing; durable when this returns."""
        path = f"/projects/{project_id}/objects/pack"
        headers = {"Content-Type": MEDIA_TYPE}
        response = self._http.request("POST", path, body=body, headers=headers, repeatable=True)
        return _understood(_STORED_OBJECTS, _member(response, "stored"))

    @contextmanager
    def open_object(
        self, project_id: UUID, sha256: str, start: int = 0, *, await_restore: bool = True
    ) -> Iterator[ObjectStream]:
        """Receive one content, from byte `start` on if the depot can do that.

        From its beginning it comes as it is stored, compressed; a later part is always the content itself.
        Raises BeingRestored when an archive has it and that is not to be waited for.
        """
        headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {"Accept-Encoding": "gzip"}
        path = f"/projects/{project_id}/objects/{sha256}"
        response = self._http.request("GET", path, headers=headers, stream=True, await_restore=await_restore)
        try:
            is_gzip = response.headers.get("Content-Encoding") == "gzip"
            begins_at = start if response.status == PARTIAL_CONTENT else 0
            yield ObjectStream(begins_at, is_gzip, self._http.read_chunks(response))
        finally:
            response.close()

    @contextmanager
    def open_pack(
        self, project_id: UUID, hashes: Sequence[str], *, await_restore: bool = True
    ) -> Iterator[Iterator[bytes]]:
        """Receive many contents (at most FETCH_LIMIT) as one pack stream, each as a gzip member.

        Raises BeingRestored when an archive has some of them and that is not to be waited for.
        """
        path = f"/projects/{project_id}/objects/fetch"
        document = {"sha256": list(hashes)}
        response = self._http.request(
            "POST", path, document=document, repeatable=True, stream=True, await_restore=await_restore
        )
        try:
            yield self._http.read_chunks(response)
        finally:
            response.close()

    def object_content(self, project_id: UUID, sha256: str) -> Iterator[bytes]:
        """One content piece by piece. Raises DamagedContent at its end when what arrived is not it."""
        digest = hashlib.sha256()
        with self.open_object(project_id, sha256) as stream:
            unzip = zlib.decompressobj(GZIP_WINDOW).decompress if stream.is_gzip else bytes
            try:
                for piece in map(unzip, stream.chunks):
                    digest.update(piece)
                    yield piece
            except zlib.error as error:
                raise DamagedContent(f"Content {sha256} arrived damaged: {error}. Try again.") from error
        if digest.hexdigest() != sha256:
            raise DamagedContent(f"What arrived as content {sha256} is not it. Try again.")

    # Changelists

    def create_changelist(self, project_id: UUID, branch_id: UUID, description: str) -> Changelist:
        """Open a changelist that will be submitted to a branch."""
        document = {"project_id": str(project_id), "branch_id": str(branch_id), "description": description}
        return self._create(Changelist, "/changelists", document)

    def changelist(self, changelist_id: UUID) -> Changelist:
        return self._ask(Changelist, "GET", f"/changelists/{changelist_id}")

    def changelists(
        self,
        project_id: UUID,
        *,
        branch_id: UUID | None = None,
        status: ChangelistStatus | None = None,
        author_id: UUID | None = None,
        number: int | None = None,
    ) -> Iterator[Changelist]:
        """Changelists of a project, newest first; further pages are asked for as they are read."""
        query = {"branch_id": branch_id, "status": status, "author_id": author_id, "number": number}
        return self._pages(Changelist, f"/projects/{project_id}/changelists", query)

    def find_changelist(self, project_id: UUID, number: int) -> Changelist:
        """The changelist that a submit gave this number. Raises ProblemError 404 when there is none."""
        for changelist in self.changelists(project_id, number=number):
            return changelist
        raise _not_found(f"The project has no submitted changelist {number}; `depot changes` lists what it has.")

    def changelist_items(self, changelist_id: UUID) -> Iterator[ChangelistItem]:
        return self._pages(ChangelistItem, f"/changelists/{changelist_id}/items", {})

    def add_items(self, changelist_id: UUID, items: Sequence[Item]) -> int:
        """Put items into an open changelist; the same path again replaces. Returns how many it then has."""
        count = 0
        for start in range(0, len(items), ITEMS_LIMIT):
            batch = [_item_document(item) for item in items[start : start + ITEMS_LIMIT]]
            path = f"/changelists/{changelist_id}/items"
            response = self._http.request("POST", path, document={"items": batch}, repeatable=True)
            count = int(_member(response, "items_count"))
        return count

    def submit_changelist(self, changelist_id: UUID, idempotency_key: str) -> Submitted:
        """Submit, all or nothing. The same key again gets the same answer, so this is repeated when cut off."""
        path = f"/changelists/{changelist_id}/submit"
        headers = {"Idempotency-Key": idempotency_key}
        return self._ask(Submitted, "POST", path, headers=headers, repeatable=True)

    def abandon_changelist(self, changelist_id: UUID) -> None:
        self._http.request("DELETE", f"/changelists/{changelist_id}", headers={"If-Match": ANY_STATE})

    def revert_changelist(self, changelist_id: UUID, description: str | None = None) -> Changelist:
        """Open a changelist that undoes a submitted one."""
        return self._create(Changelist, f"/changelists/{changelist_id}/revert", {"description": description})

    # Reviews

    def request_review(self, changelist_id: UUID, reviewers: Sequence[str] = ()) -> Changelist:
        """Ask these users; without any, whoever may approve there can."""
        document = {"reviewers": list(reviewers)}
        return self._ask(Changelist, "POST", f"/changelists/{changelist_id}/review-requests", document=document)

    def decide_review(self, changelist_id: UUID, verdict: Verdict, comment: str = "", *, revision: int) -> Review:
        """`revision` is that of the changelist which was looked at. Raises ProblemError 412 when it has changed."""
        document = {"verdict": verdict, "comment": comment}
        headers = {"If-Match": f'"{revision}"'}
        return self._ask(Review, "PUT", f"/changelists/{changelist_id}/review", document=document, headers=headers)

    def reviews(self, *, project_id: UUID | None = None, changelist_id: UUID | None = None) -> Iterator[Review]:
        """Newest first."""
        return self._pages(Review, "/reviews", {"project_id": project_id, "changelist_id": changelist_id})

    def pending_reviews(self) -> Iterator[Review]:
        """Those that wait for the user, oldest first."""
        return self._pages(Review, "/reviews/pending", {})

    def add_comment(self, changelist_id: UUID, body: str, path: str | None = None) -> Comment:
        return self._create(Comment, f"/changelists/{changelist_id}/comments", {"body": body, "path": path})

    def comments(self, changelist_id: UUID) -> Iterator[Comment]:
        """Oldest first."""
        return self._pages(Comment, f"/changelists/{changelist_id}/comments", {})

    # Workspaces, as the depot keeps them

    def create_workspace(
        self, project_id: UUID, branch_id: UUID, name: str, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> Workspace:
        """A workspace that has nothing yet; `*` in a pattern is within a directory, `**` any number of them."""
        document = {
            "project_id": str(project_id),
            "branch_id": str(branch_id),
            "name": name,
            "include": list(include),
            "exclude": list(exclude),
        }
        return self._create(Workspace, "/workspaces", document)

    def workspaces(self, project_id: UUID) -> Iterator[Workspace]:
        """One's own in a project, by name."""
        return self._pages(Workspace, f"/projects/{project_id}/workspaces", {})

    def switch_workspace(self, workspace_id: UUID, branch_id: UUID) -> Workspace:
        """Follow another branch; the next sync transfers what differs."""
        document = {"branch_id": str(branch_id)}
        return self._ask(Workspace, "PATCH", f"/workspaces/{workspace_id}", document=document, repeatable=True)

    def map_workspace(self, workspace_id: UUID, include: Sequence[str], exclude: Sequence[str]) -> Workspace:
        """Replace both lists of patterns."""
        document = {"include": list(include), "exclude": list(exclude)}
        return self._ask(Workspace, "PATCH", f"/workspaces/{workspace_id}", document=document, repeatable=True)

    def delete_workspace(self, workspace_id: UUID) -> None:
        self._http.request("DELETE", f"/workspaces/{workspace_id}")

    def workspace_files(self, workspace_id: UUID) -> Iterator[WorkspaceFile]:
        """The have-list, in path order."""
        return self._pages(WorkspaceFile, f"/workspaces/{workspace_id}/files", {})

    def plan_workspace_sync(self, workspace_id: UUID, at: int | None = None) -> WorkspaceSync:
        """What to fetch, replace and remove to have the branch as of changelist `at` (the head when None)."""
        path = f"/workspaces/{workspace_id}/sync"
        response = self._http.request("POST", path, document={"at": at}, repeatable=True, stream=True)
        rows = [json.loads(line) for line in _lines(self._http.read_chunks(response))]
        if not rows or rows[-1] != {"rows": len(rows) - 2}:
            raise ConnectionLost(f"The answer from {self.url} was cut off after {len(rows)} lines. Try again.")
        first, *changes, _ = rows
        return WorkspaceSync(first["at"], first["is_sparse"], [FileChange.model_validate(row) for row in changes])

    def acknowledge_sync(
        self, workspace_id: UUID, at: int, changes: Sequence[FileChange], *, complete: bool = False
    ) -> Workspace:
        """Tell what was done of a sync to `at`, at most ITEMS_LIMIT changes; `complete` when that was the rest."""
        files = [{"path": change.path, "version": change.version} for change in changes]
        document = {"at": at, "files": files, "complete": complete}
        return self._ask(Workspace, "POST", f"/workspaces/{workspace_id}/synced", document=document, repeatable=True)

    # Shelves

    def create_shelf(self, project_id: UUID, branch_id: UUID, description: str, items: Sequence[Item]) -> Shelf:
        """Shelve at most ITEMS_LIMIT items, whose contents were sent before."""
        document = {
            "project_id": str(project_id),
            "branch_id": str(branch_id),
            "description": description,
            "items": [_item_document(item) for item in items],
        }
        return self._create(Shelf, "/shelves", document)

    def shelve_changelist(self, changelist_id: UUID, description: str | None = None) -> Shelf:
        """Shelve what is in an open changelist; it stays in it."""
        return self._create(Shelf, f"/changelists/{changelist_id}/shelve", {"description": description})

    def shelf(self, shelf_id: UUID) -> Shelf:
        return self._ask(Shelf, "GET", f"/shelves/{shelf_id}")

    def shelves(
        self, project_id: UUID, *, branch_id: UUID | None = None, owner_id: UUID | None = None
    ) -> Iterator[Shelf]:
        """Shelves of a project, newest first; further pages are asked for as they are read."""
        query = {"branch_id": branch_id, "owner_id": owner_id}
        return self._pages(Shelf, f"/projects/{project_id}/shelves", query)

    def shelf_items(self, shelf_id: UUID) -> Iterator[ShelfItem]:
        return self._pages(ShelfItem, f"/shelves/{shelf_id}/items", {})

    def replace_shelf_items(self, shelf_id: UUID, items: Sequence[Item]) -> Shelf:
        document = {"items": [_item_document(item) for item in items]}
        return self._ask(Shelf, "PUT", f"/shelves/{shelf_id}/items", document=document, repeatable=True)

    def unshelve(self, shelf_id: UUID, changelist_id: UUID, *, replace: bool = False) -> int:
        """Copy a shelf's items into an open changelist of one's own. Returns how many it then has."""
        document = {"changelist_id": str(changelist_id), "replace": replace}
        return self._create(Unshelved, f"/shelves/{shelf_id}/unshelve", document).items_count

    def delete_shelf(self, shelf_id: UUID) -> None:
        self._http.request("DELETE", f"/shelves/{shelf_id}")

    # Locks and typemap

    def lock(
        self,
        project_id: UUID,
        branch_id: UUID,
        bases: Mapping[str, int | None],
        lease_seconds: int | None = None,
    ) -> list[Lock]:
        """Lock paths (path → version had, None for a new one; at most LOCKS_LIMIT), all or none; renews one's own.

        Raises ProblemError `locked`, or `stale-lock-base` when a newer version is on any branch in scope.
        """
        items = [{"path": path, "base_version": version} for path, version in bases.items()]
        document: dict[str, Any] = {"project_id": str(project_id), "branch_id": str(branch_id), "items": items}
        if lease_seconds is not None:
            document["lease_seconds"] = lease_seconds
        response = self._http.request("POST", "/locks/batch", document=document, repeatable=True)
        return _understood(_LOCKS, _member(response, "items"))

    def locks(
        self,
        project_id: UUID,
        *,
        path: str | None = None,
        prefix: str | None = None,
        holder: str | None = None,
        expired: bool | None = None,
    ) -> Iterator[Lock]:
        """Locks in path order; `expired` None gives those whose lease has ended too."""
        query = {"path": path, "prefix": prefix, "holder": holder, "expired": expired}
        return self._pages(Lock, f"/projects/{project_id}/locks", query)

    def renew_lock(self, lock_id: UUID, lease_seconds: int) -> Lock:
        document = {"lease_seconds": lease_seconds}
        return self._ask(Lock, "POST", f"/locks/{lock_id}/renew", document=document, headers=_ANY, repeatable=True)

    def release_lock(self, lock_id: UUID) -> None:
        self._http.request("DELETE", f"/locks/{lock_id}", headers=_ANY)

    def break_lock(self, lock_id: UUID, reason: str) -> None:
        """Anybody's, by a lead and above; the reason is kept for good."""
        self._http.request("POST", f"/locks/{lock_id}/break", document={"reason": reason})

    def typemap(self, project_id: UUID) -> list[TypemapRule]:
        response = self._http.request("GET", f"/projects/{project_id}/typemap")
        return _understood(_TYPEMAP, _member(response, "rules"))

    def set_typemap(self, project_id: UUID, rules: Sequence[TypemapRule]) -> None:
        """Replace all rules; of those that match a path, the last one holds."""
        document = {"rules": [rule.model_dump(mode="json") for rule in rules]}
        self._http.request("PUT", f"/projects/{project_id}/typemap", document=document)

    # Merges

    def preview_merge(
        self, project_id: UUID, source_id: UUID, target_id: UUID, *, source_at: int | None = None
    ) -> MergePlan:
        """What merging branch `source_id` (as of `source_at`, its head when None) would do. Nothing is written."""
        document = _merge_document(project_id, source_id, target_id, source_at)
        query = {"preview": "true"}
        return self._ask(MergePlan, "POST", "/branch-merges", query=query, document=document, repeatable=True)

    def create_merge(
        self,
        project_id: UUID,
        source_id: UUID,
        target_id: UUID,
        *,
        source_at: int | None = None,
        description: str = "",
        submit: bool = True,
    ) -> BranchMerge:
        """Begin a merge, which executors carry out; with `submit` it lands when no conflict is open."""
        ends = _merge_document(project_id, source_id, target_id, source_at)
        document = ends | {"description": description, "submit": submit}
        headers = {"Idempotency-Key": str(uuid4())}
        return self._ask(BranchMerge, "POST", "/branch-merges", document=document, headers=headers, repeatable=True)

    def merge(self, merge_id: UUID) -> BranchMerge:
        return self._ask(BranchMerge, "GET", f"/branch-merges/{merge_id}")

    def merges(self, project_id: UUID, statuses: Sequence[MergeStatus] = ()) -> Iterator[BranchMerge]:
        """A project's merges, newest first; of any state when none is named."""
        return self._pages(BranchMerge, f"/projects/{project_id}/branch-merges", {"status": ",".join(statuses)})

    def cancel_merge(self, merge_id: UUID) -> BranchMerge:
        return self._ask(BranchMerge, "POST", f"/branch-merges/{merge_id}/cancel")

    def conflicts(self, merge_id: UUID, *, unresolved: bool = False) -> Iterator[MergeConflict]:
        """By path; with `unresolved` only those that wait for a choice."""
        query = {"unresolved": str(unresolved).lower()}
        return self._pages(MergeConflict, f"/branch-merges/{merge_id}/conflicts", query)

    def resolve_conflict(
        self, conflict_id: UUID, resolution: Resolution, *, sha256: str | None = None, reason: str = ""
    ) -> MergeConflict:
        """`sha256` names the content of a version of one's own, which was sent before."""
        document = {"resolution": resolution, "sha256": sha256, "reason": reason}
        path = f"/merge-conflicts/{conflict_id}"
        return self._ask(MergeConflict, "PATCH", path, document=document, repeatable=True)

    def resolve_conflicts(
        self, merge_id: UUID, pattern: str, resolution: Resolution, *, reason: str = ""
    ) -> ConflictsResolved:
        """Take one side in every conflict that the pattern names and that has no choice yet."""
        document = {"pattern": pattern, "resolution": resolution, "reason": reason}
        path = f"/branch-merges/{merge_id}/conflicts"
        return self._ask(ConflictsResolved, "POST", path, document=document, repeatable=True)

    def merge_jobs(self, merge_id: UUID) -> list[MergeJob]:
        response = self._http.request("GET", f"/branch-merges/{merge_id}/jobs")
        return _understood(_MERGE_JOBS, json.loads(response.data))

    def add_merge_job(self, merge_id: UUID, job_type: JobType) -> MergeJob:
        """Queue a job, as the submit_gate of a merge that has none; one that is there stays as it is."""
        path = f"/branch-merges/{merge_id}/jobs"
        return self._ask(MergeJob, "POST", path, document={"job_type": job_type}, repeatable=True)

    # Merge jobs, for executors. Every ProblemError `lease-lost` means: stop, somebody else has the job.

    def claimable_merge_jobs(self) -> list[ClaimableJob]:
        """What could be claimed now, oldest first."""
        response = self._http.request("GET", "/merge-jobs", query={"limit": PAGE_LIMIT})
        return _understood(_CLAIMABLE_JOBS, json.loads(response.data))

    def claim_merge_job(
        self, executor: str, lease_seconds: int, *, merge_id: UUID | None = None, job_id: UUID | None = None
    ) -> MergeJob | None:
        """The oldest job that can be done now, or None. Not repeated when cut off: its lease ends by itself."""
        document = {
            "executor": executor,
            "lease_seconds": lease_seconds,
            "merge_id": str(merge_id) if merge_id else None,
            "job_id": str(job_id) if job_id else None,
        }
        return self._ask(ClaimedJob, "POST", "/merge-jobs/claim", document=document).job

    def step_merge_job(self, job: MergeJob, lease_seconds: int, *, texts_tried: bool = False) -> JobStep:
        """Take the next step. Repeated when cut off: a step that was taken is not taken again, but lease-lost."""
        document = {
            "fencing_number": job.fencing_number,
            "lease_seconds": lease_seconds,
            "texts_tried": texts_tried,
        }
        return self._ask(JobStep, "POST", f"/merge-jobs/{job.id}/step", document=document, repeatable=True)

    def renew_merge_job(self, job: MergeJob, lease_seconds: int) -> MergeJob:
        document = {"fencing_number": job.fencing_number, "lease_seconds": lease_seconds}
        return self._ask(MergeJob, "PATCH", f"/merge-jobs/{job.id}", document=document, repeatable=True)

    def fail_merge_job(self, job: MergeJob, error: str) -> MergeJob:
        """Report why it did not work; the depot queues it again for later, or gives it up."""
        document = {"fencing_number": job.fencing_number, "status": "failed", "error": error}
        return self._ask(MergeJob, "PATCH", f"/merge-jobs/{job.id}", document=document, repeatable=True)

    def put_merged_text(self, job: MergeJob, conflict_id: UUID, content: bytes) -> MergeConflict:
        """Send what both sides of a conflict gave together."""
        path = f"/merge-jobs/{job.id}/texts/{conflict_id}"
        query = {"fencing_number": job.fencing_number}
        return self._ask(MergeConflict, "PUT", path, query=query, body=Body(len(content), lambda: (content,)))

    # Below the surface

    def _ask(self, answer: type[AnswerType], method: str, path: str, **request: Any) -> AnswerType:
        response = self._http.request(method, path, **request)
        try:
            return answer.model_validate_json(response.data)
        except ValidationError as error:
            raise _unexpected(response, str(error)) from error

    def _create(self, answer: type[AnswerType], path: str, document: Mapping[str, Any]) -> AnswerType:
        """With a key of its own, so that it can be asked again when the connection breaks."""
        headers = {"Idempotency-Key": str(uuid4())}
        return self._ask(answer, "POST", path, document=document, headers=headers, repeatable=True)

    def _pages(self, answer: type[AnswerType], path: str, query: Mapping[str, Any]) -> Iterator[AnswerType]:
        cursor = None
        while True:
            page = {**query, "limit": PAGE_LIMIT, "cursor": cursor}
            response = self._http.request("GET", path, query=page)
            yield from _understood(TypeAdapter(list[answer]), _member(response, "items"))  # type: ignore[valid-type]
            cursor = _member(response, "next_cursor")
            if cursor is None:
                return

    def _manifest(self, branch_id: UUID, at: int | None) -> Manifest:
        headers = {"Accept": "application/x-ndjson"}
        path = f"/branches/{branch_id}/manifest"
        response = self._http.request("GET", path, query={"at": at}, headers=headers, stream=True)
        as_of: int | None = None
        announced: int | None = None
        files: dict[str, Version] = {}
        for line in _lines(self._http.read_chunks(response)):
            row = json.loads(line)
            if "path" in row:
                files[row["path"]] = Version(row["version"], row["sha256"], row["size_bytes"])
            elif "rows" in row:
                announced = row["rows"]
            else:
                as_of = row["at"]
        if as_of is None or announced != len(files):
            raise ConnectionLost(f"The manifest from {self.url} was cut off after {len(files)} rows. Try again.")
        return Manifest(as_of, files)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines; an unfinished last one is dropped, the row count tells that it is missing."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _point(number_name: str, label_name: str, point: int | str | None) -> dict[str, int | str | None]:
    return {label_name if isinstance(point, str) else number_name: point}


def _merge_document(
    project_id: UUID, source_id: UUID, target_id: UUID, source_at: int | None
) -> dict[str, str | int | bool | None]:
    ends = {"source_branch_id": str(source_id), "target_branch_id": str(target_id)}
    return {"project_id": str(project_id), **ends, "source_at": source_at}


def _item_document(item: Item) -> dict[str, Any]:
    return {name: value for name, value in asdict(item).items() if value is not None or name == "base_version"}


def _member(response: urllib3.BaseHTTPResponse, name: str) -> Any:
    try:
        return json.loads(response.data)[name]
    except (ValueError, KeyError, TypeError) as error:
        raise _unexpected(response, f"no {name!r} in it") from error


AdaptedType = TypeVar("AdaptedType")


def _understood(adapter: TypeAdapter[AdaptedType], value: Any) -> AdaptedType:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise UnexpectedAnswer(f"The answer is not one that a depot gives: {error}") from error


def _unexpected(response: urllib3.BaseHTTPResponse, why: str) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{response.url} answered {response.status} but not as a depot does ({why}). Check the depot's address."
    )


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _not_found(detail: str) -> ProblemError:
    document = {"type": "urn:asset-depot:problem:not-found", "title": "Not found", "detail": detail}
    return ProblemError(NOT_FOUND, document)
