"""A file in a form: it streams, and whoever may not send it is told before it is read."""

import hashlib
import os
import socket

import httpx
import pytest

from depot_api.assets.upload import MAX_FIELDS_BYTES

BOUNDARY = "----tests"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
END = f"--{BOUNDARY}--\r\n".encode()


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def file_part(content: bytes) -> bytes:
    return part("file", content, '; filename="a"\r\nContent-Type: application/octet-stream')


@pytest.fixture
def url(project) -> str:
    asset = project.http.post("/assets", json={"project_id": project.id, "path": "a"}).json()
    return f"/assets/{asset['id']}/versions/upload"


def status_before_the_file(api, url: str, token: str) -> int:
    """What is answered to a form of 10 GB of which no byte of the file was sent."""
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {FORM['Content-Type']}\r\n\r\n".encode()
            + file_part(b"")[:-2]
        )
        return int(connection.recv(1000).split()[1])


def test_whoever_may_not_send_it_is_told_before_the_file_is_read(api, project, url):
    assert status_before_the_file(api, url, "depot_unknown") == 401
    assert status_before_the_file(api, url, api.user().token) == 404
    assert status_before_the_file(api, url, project.member("viewer").token) == 403
    assert project.http.patch(f"/projects/{project.id}", json={"quota_bytes": 1000}).status_code == 200
    assert status_before_the_file(api, url, api.token) == 507


@pytest.mark.parametrize("fields_first", [True, False])
def test_fields_before_and_after_the_file(project, url, fields_first):
    content = b"\r\n--" + os.urandom(300_000) + f"\r\n--{BOUNDARY[:-1]}".encode()
    fields = part("description", "für alle".encode()) + part("branch_id", project.main.encode())
    body = fields + file_part(content) + END if fields_first else file_part(content) + fields + END
    answer = project.http.post(url, content=body, headers=FORM)
    assert (answer.status_code, answer.json()["sha256"]) == (201, hashlib.sha256(content).hexdigest()), answer.text
    changelist = project.http.get(f"/changelists/{answer.json()['changelist_id']}").json()
    assert changelist["description"] == "für alle"


def test_the_quota_counts_the_file_and_not_the_form(project, url):
    assert project.http.patch(f"/projects/{project.id}", json={"quota_bytes": 100}).status_code == 200
    for size, status in ((101, 507), (100, 201)):
        body = part("description", b"before") + file_part(b"x" * size) + END
        assert project.http.post(url, content=body, headers=FORM).status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no form", 400),
        (file_part(b"x"), 400),
        (file_part(b"x") + END[:-4], 400),
        (file_part(b"x").replace(b"\r\n\r\n", b"\r\n:\r\n\r\n") + END, 400),
        (END, 422),
        (part("description", b"no file") + END, 422),
        (file_part(b"x") + file_part(b"y") + END, 422),
        (file_part(b"x") + part("base_version", b"1") * 2 + END, 422),
        (file_part(b"x") + part("base_version", b"one") + END, 422),
        (file_part(b"x") + part("base_verison", b"1") + END, 422),
        (file_part(b"x") + part("description", b"\x00") + END, 422),
        (file_part(b"x") + part("description", b"\xff") + END, 422),
        (file_part(b"x") + part("description", bytes(MAX_FIELDS_BYTES)) + END, 413),
        (part("description", bytes(MAX_FIELDS_BYTES)) + file_part(b"x") + END, 413),
    ],
)
def test_bad_forms(api, project, url, body, status):
    content = os.urandom(50)
    answer = project.http.post(url, content=body.replace(b"x\r\n", content + b"\r\n"), headers=FORM)
    assert (answer.status_code, answer.json()["status"]) == (status, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    sha256 = hashlib.sha256(content).hexdigest()
    assert not (api.store / "objects" / sha256[:2] / f"{sha256}.bin.gz").exists()


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("application/json", 415), ("multipart/form-data", 400), (f"multipart/form-data; boundary={'b' * 300}", 400)],
)
def test_what_is_no_form(project, url, content_type, status):
    answer: httpx.Response = project.http.post(url, content=b"{}", headers={"Content-Type": content_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
