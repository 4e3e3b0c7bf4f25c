"""Secrets of files reach the process, and nothing else does."""

import subprocess
import sys

import pytest

from depot_api.secret_files import SecretFileError, with_secrets

COMMAND = [sys.executable, "-m", "depot_api.secret_files"]


def test_the_command_gets_the_content_and_not_the_file(tmp_path):
    (tmp_path / "token").write_text("a secret\n")
    environment = {"PATH": "/usr/bin:/bin", "DEPOT_TOKEN_FILE": str(tmp_path / "token"), "DEPOT_URL": "http://depot"}
    others = {"SECRETS_DIR": str(tmp_path), "SSL_CERT_FILE": "/etc/ssl/nowhere.pem"}
    assert with_secrets(environment | others) == others | {
        "PATH": "/usr/bin:/bin",
        "DEPOT_TOKEN": "a secret",
        "DEPOT_URL": "http://depot",
    }


@pytest.mark.parametrize(
    ("content", "said"), [(None, "FileNotFoundError"), (b" \n", "is empty"), (b"\xff\xfe", "UnicodeDecodeError")]
)
def test_an_unusable_file_is_named(tmp_path, content, said):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecretFileError, match=said) as raised:
        with_secrets({"SECRETS_DIR": str(tmp_path), "DEPOT_TOKEN_FILE": str(path)})
    assert "DEPOT_TOKEN_FILE" in str(raised.value) and str(path) in str(raised.value)


def test_two_answers_are_refused():
    with pytest.raises(SecretFileError, match="both set"):
        with_secrets({"DEPOT_TOKEN": "one", "DEPOT_TOKEN_FILE": "/run/secrets/token"})


def test_the_exit_code_is_the_command_s():
    assert subprocess.run([*COMMAND, "sh", "-c", "exit 7"], check=False).returncode == 7
    unknown = subprocess.run([*COMMAND, "no-such-program"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1 and "no-such-program cannot be run" in unknown.stderr
