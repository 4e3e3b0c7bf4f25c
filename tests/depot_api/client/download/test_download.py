"""A depot that sends wrong bytes: nothing of them gets a name."""

import gzip
import hashlib
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import uuid4

import pytest

from depot_api.blobstore.pack import encode_header
from depot_api.client import DamagedContent, DepotClient
from depot_api.client.download import SMALL_BYTES, Downloader, Wanted
from depot_api.client.progress import Silent
from depot_api.client.tree import WorkTree

SMALL = b"small " * 1_000
LARGE = os.urandom(SMALL_BYTES) * 3


def framed(sha256: str, stored: bytes) -> bytes:
    return encode_header(sha256, len(stored)) + stored


def fetch(server, tmp_path: Path, content: bytes, sent: bytes) -> None:
    def send(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(sent)))
        if handler.command == "GET":
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(sent)

    wanted = Wanted(hashlib.sha256(content).hexdigest(), len(content), {"a/b": None, "copy": None})
    with server(send) as (url, _), DepotClient(url) as client:
        list(Downloader(client, uuid4(), WorkTree(tmp_path), Silent()).download([wanted]))


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_right_bytes_are_placed(server, tmp_path: Path, content: bytes) -> None:
    stored = gzip.compress(content)
    is_small = len(content) <= SMALL_BYTES
    fetch(server, tmp_path, content, framed(hashlib.sha256(content).hexdigest(), stored) if is_small else stored)
    assert (tmp_path / "a/b").read_bytes() == (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(b"other"),
        gzip.compress(SMALL[:-1]),
        gzip.compress(SMALL + b"more"),
        gzip.compress(SMALL)[:-20],
        gzip.compress(SMALL)[:-8] + b"12345678",
        b"not gzip at all",
        b"",
    ],
    ids=["other", "short", "long", "cut off", "bad checksum", "no gzip", "empty"],
)
def test_wrong_small_contents_are_noticed(server, tmp_path: Path, stored: bytes) -> None:
    with pytest.raises(DamagedContent):
        fetch(server, tmp_path, SMALL, framed(hashlib.sha256(SMALL).hexdigest(), stored))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "sent",
    [b"", b"x" * 39, framed("1" * 64, gzip.compress(SMALL)), b"\xff" * 40],
    ids=["nothing", "part of a header", "not asked for", "endless"],
)
def test_what_is_no_pack_of_the_contents_is_noticed(server, tmp_path: Path, sent: bytes) -> None:
    with pytest.raises(DamagedContent):
        fetch(server, tmp_path, SMALL, sent)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(b"other" * SMALL_BYTES),
        gzip.compress(LARGE[:-1], 1),
        gzip.compress(LARGE + b"more", 1),
        gzip.compress(LARGE, 1)[:-1_000],
        gzip.compress(bytes(200_000_000), 1),
    ],
    ids=["other", "short", "long", "cut off", "bomb"],
)
def test_wrong_large_contents_are_noticed(server, tmp_path: Path, stored: bytes) -> None:
    with pytest.raises(DamagedContent):
        fetch(server, tmp_path, LARGE, stored)
    assert not (tmp_path / "a").exists()
