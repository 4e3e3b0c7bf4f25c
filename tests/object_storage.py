"""Two servers that speak S3: rclone for the data path, moto for what it lacks."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest

from depot_ops.local.ports import any_free

BIN = Path(sys.executable).parent
KEY_ID, SECRET = "KEYFORTESTS", "secret-for-tests"
STARTS_WITHIN_SECONDS = 30


@dataclass(frozen=True)
class Endpoint:
    """A server on loopback, with what tells our settings of it."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "S3_ENDPOINT_URL": self.url,
            "S3_REGION": "eu-north-1",
            "S3_ACCESS_KEY_ID": KEY_ID,
            "S3_SECRET_ACCESS_KEY": SECRET,
        }

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="eu-north-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )

    def bucket(self, name: str) -> str:
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
        return f"s3://{name}"


@contextmanager
def serving(command: list[str | Path], url: str, log: Path) -> Iterator[Endpoint]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "RCLONE_CONFIG": ""})
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    try:
        while not answers(url):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Endpoint(url)
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=5)
    except httpx.TransportError:
        return False
    return True


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory) -> Iterator[Endpoint]:
    """A bucket is a directory; content is not compared with the checksum sent, and conditions are ignored."""
    root, port = tmp_path_factory.mktemp("rclone"), any_free()
    command = [BIN / "rclone", "serve", "s3", "--auth-key", f"{KEY_ID},{SECRET}", "--addr", f"127.0.0.1:{port}", root]
    with serving(command, f"http://127.0.0.1:{port}", root.with_name("rclone.log")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def moto_s3(tmp_path_factory) -> Iterator[Endpoint]:
    """Keeps to conditions, storage classes and life cycles."""
    port, log = any_free(), tmp_path_factory.mktemp("moto") / "log"
    command = [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, f"http://127.0.0.1:{port}", log) as endpoint:
        yield endpoint
