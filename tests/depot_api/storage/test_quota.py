"""A quota holds against racing uploads, and a project is charged once for each content."""

import hashlib
import os
import socket
import threading
from datetime import date, timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors

from depot_api.blobstore import pack


def set_quota(project, quota_bytes):
    changed = project.http.patch(f"/projects/{project.id}", json={"quota_bytes": quota_bytes})
    assert changed.status_code == 200, changed.text


def storage(project):
    answer = project.http.get(f"/projects/{project.id}/storage")
    assert answer.status_code == 200, answer.text
    return answer.json()


def put(http, project, content):
    sha256 = hashlib.sha256(content).hexdigest()
    return http.put(f"/projects/{project.id}/objects/{sha256}", content=content)


def as_pack(*contents: bytes) -> bytes:
    return b"".join(pack.encode_header(hashlib.sha256(c).hexdigest(), len(c)) + c for c in contents)


def put_pack(http, project, *contents: bytes):
    headers = {"Content-Type": pack.MEDIA_TYPE}
    return http.post(f"/projects/{project.id}/objects/pack", content=as_pack(*contents), headers=headers)


def test_each_content_is_charged_once(project, new_project):
    content = os.urandom(1000)
    project.put(content)
    project.put(content)
    colleague = project.member("contributor")
    assert put(colleague.http, project, content).status_code == 201
    assert put_pack(project.http, project, content, b"four", b"four").status_code == 201
    project.add("a", content)
    project.add("b", content)
    used = {"used_bytes": 1004, "objects": 2, "reserved_bytes": 0, "quota_bytes": None}
    assert storage(project) == used
    assert project.http.post(f"/projects/{project.id}/storage/snapshots").json()["used_bytes"] == 1004
    assert storage(project) == used, "counted from nothing it is the same"
    elsewhere = new_project()
    elsewhere.put(content)
    assert storage(elsewhere)["used_bytes"] == 1000


def test_the_same_content_from_many_at_once_is_charged_once(project):
    contents = [os.urandom(100) for _ in range(20)]
    users = [project.member("contributor") for _ in range(4)]
    barrier = threading.Barrier(len(users))
    answers: list[int] = []

    def send(user, mine):
        barrier.wait()
        answers.append(put_pack(user.http, project, *mine).status_code)
        answers.extend(put(user.http, project, content).status_code for content in mine)

    orders = [contents, contents[::-1], contents[7:] + contents[:7], contents[::-1]]
    threads = [threading.Thread(target=send, args=pair) for pair in zip(users, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {201}
    used = storage(project)
    assert (used["used_bytes"], used["objects"]) == (2000, 20)


def test_what_does_not_fit_is_refused_and_leaves_nothing(api, project):
    set_quota(project, 1000)
    project.put(b"x" * 600)
    refused = put(project.http, project, b"y" * 401)
    problem = refused.json()
    assert (refused.status_code, problem["type"].rsplit(":")[-1]) == (507, "quota-exceeded")
    assert (problem["size_bytes"], problem["used_bytes"], problem["quota_bytes"]) == (401, 600, 1000)
    assert project.name in problem["detail"]
    assert put_pack(project.http, project, b"z" * 400).status_code == 507, "a pack is as large as it is on the wire"
    assert storage(project)["used_bytes"] == 600
    project.put(b"y" * 400)
    assert storage(project) == {"used_bytes": 1000, "objects": 2, "reserved_bytes": 0, "quota_bytes": 1000}
    assert put(project.http, project, b"y" * 400).status_code == 201, "it is charged already"
    set_quota(project, None)
    project.put(b"z" * 5000)


def test_a_multipart_upload_has_a_quota_too(project):
    asset = {"project_id": project.id, "path": "a"}
    asset_id = project.http.post("/assets", json=asset).json()["id"]
    set_quota(project, 100)
    url = f"/assets/{asset_id}/versions/upload"
    assert project.http.post(url, files={"file": b"x" * 101}).status_code == 507
    assert project.http.post(url, files={"file": b"x" * 100}).status_code == 201


def test_a_refused_upload_gives_its_room_back(project):
    set_quota(project, 1000)
    wrong = project.http.put(f"/projects/{project.id}/objects/{'0' * 64}", content=b"x" * 1000)
    assert wrong.status_code == 422
    assert storage(project)["reserved_bytes"] == 0
    project.put(b"x" * 1000)


def test_an_upload_without_a_length_needs_one_only_with_a_quota(project):
    def chunks():
        yield b"some"

    sha256 = hashlib.sha256(b"some").hexdigest()
    assert project.http.put(f"/projects/{project.id}/objects/{sha256}", content=chunks()).status_code == 201
    set_quota(project, 1000)
    refused = project.http.put(f"/projects/{project.id}/objects/{sha256}", content=chunks())
    assert (refused.status_code, refused.json()["type"].rsplit(":")[-1]) == (411, "length-required")


@pytest.mark.parametrize("round_number", range(5))
def test_of_two_uploads_that_race_at_the_limit_one_wins(project, round_number):
    set_quota(project, 1500)
    contents = [os.urandom(1000), os.urandom(1000)]
    barrier = threading.Barrier(2)
    statuses: list[int] = []

    def send(content):
        with project.api.client() as http:
            http.get("/health/live")  # connected before the race
            barrier.wait()
            statuses.append(put(http, project, content).status_code)

    threads = [threading.Thread(target=send, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 507]
    assert storage(project)["used_bytes"] == 1000


def test_room_is_held_from_the_first_byte_and_freed_when_the_sender_hangs_up(api, project):
    set_quota(project, 1500)
    address = urlsplit(api.url)
    head = (
        f"PUT /projects/{project.id}/objects/{'0' * 64} HTTP/1.1\r\nHost: depot\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"x")
        wait_for(api, project, reserved_bytes=1000)
        refused = put(project.http, project, b"y" * 501)
        assert (refused.status_code, refused.json()["reserved_bytes"]) == (507, 1000)
        project.put(b"y" * 500)
    wait_for(api, project, reserved_bytes=0)
    project.put(b"x" * 1000)


def wait_for(api, project, reserved_bytes):
    """Until that much is reserved: the database tells when there is something new to see."""
    with psycopg.connect(api.owner_url, autocommit=True) as owner:
        for _ in range(500):
            if storage(project)["reserved_bytes"] == reserved_bytes:
                return
            owner.execute("SELECT pg_sleep(0.02)")
    raise AssertionError(f"never {reserved_bytes} bytes reserved: {storage(project)}")


def test_a_reservation_that_expired_holds_nothing_and_is_not_honoured(api, project):
    set_quota(project, 1000)
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        reservation = service.execute("SELECT reserve_upload(%s, 1000)", (project.id,)).fetchone()
        service.commit()
        assert put(project.http, project, b"x" * 1000).status_code == 507
        with psycopg.connect(api.owner_url) as owner:
            owner.execute("UPDATE upload_reservations SET expires_at = now() WHERE project_id = %s", (project.id,))
        service.execute("SELECT set_app_user(%s)", (project.http.get("/auth/me").json()["id"],))
        assert service.execute("SELECT release_upload(%s)", reservation).fetchone() == (False,)
    project.put(b"x" * 1000)


def test_quota_functions_are_for_contributors_and_their_own_uploads(api, project):
    set_quota(project, 1000)
    reviewer, contributor = project.member("reviewer"), project.member("contributor")
    with psycopg.connect(api.service_url) as service:
        service.execute("SELECT set_app_user(%s)", (reviewer.id,))
        with pytest.raises(errors.InsufficientPrivilege), service.transaction():
            service.execute("SELECT reserve_upload(%s, 1)", (project.id,))
        service.execute("SELECT set_app_user(%s)", (contributor.id,))
        reservation = service.execute("SELECT reserve_upload(%s, 1)", (project.id,)).fetchone()
        service.execute("SELECT set_app_user(%s)", (reviewer.id,))
        assert service.execute("SELECT release_upload(%s)", reservation).fetchone() == (False,)
        for statement in ("DELETE FROM upload_reservations", "UPDATE project_usage SET used_bytes = 0"):
            with pytest.raises(errors.InsufficientPrivilege), service.transaction():
                service.execute(statement)


def test_every_projects_use_is_noted_without_being_asked(own_api, running_api_factory):
    make_project, _ = running_api_factory
    project = make_project(own_api)
    project.put(b"four")
    with psycopg.connect(own_api.owner_url) as owner:
        assert owner.execute("SELECT count(*) FROM usage_changes").fetchone() == (1,)
    with psycopg.connect(own_api.service_url) as service:
        service.execute("SELECT take_storage_snapshots()")
        service.execute("SELECT take_storage_snapshots()")
    (noted,) = project.http.get(f"/projects/{project.id}/storage/snapshots").json()["items"]
    assert (noted["used_bytes"], noted["objects"]) == (4, 1)


def test_one_snapshot_a_day_is_kept(api, project):
    snapshots = f"/projects/{project.id}/storage/snapshots"
    project.put(b"one")
    assert project.http.post(snapshots).json()["used_bytes"] == 3
    project.put(b"three")
    latest = project.http.post(snapshots).json()
    assert (latest["used_bytes"], latest["objects"]) == (8, 2)
    assert project.http.get(snapshots).json()["items"] == [latest]
    today = date.fromisoformat(latest["day"])
    with psycopg.connect(api.owner_url) as owner:
        for days in range(1, 4):
            owner.execute(
                "INSERT INTO storage_snapshots (project_id, day, used_bytes, objects) VALUES (%s, %s, %s, 1)",
                (project.id, today - timedelta(days=days), days),
            )
    viewer = project.member("viewer")
    first = viewer.http.get(snapshots, params={"limit": 3}).json()
    second = viewer.http.get(snapshots, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    days = [one["day"] for one in first["items"] + second["items"]]
    assert days == [(today - timedelta(days=n)).isoformat() for n in range(4)]
    assert viewer.http.post(snapshots).status_code == 403
    assert viewer.http.get(snapshots, params={"cursor": "WyJub25lIl0"}).status_code == 422
    assert api.user().http.get(f"/projects/{project.id}/storage").status_code == 404
