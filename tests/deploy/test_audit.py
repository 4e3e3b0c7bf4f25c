"""deploy/audit.py: what is known fails it; what could not be asked is told."""

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "deploy" / "audit.py"
WELL: dict[str, Any] = {"name": "well", "version": "1", "vulns": []}
KNOWN = {"name": "bad", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"], "aliases": []}]}
UNASKED = {"name": "odd", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (json.dumps({"dependencies": [WELL]}), 0, "audited: 1 packages, 0 advisories"),
        (json.dumps({"dependencies": [WELL, KNOWN]}), 1, "bad 1: CVE-1, fixed in 2"),
        (json.dumps({"dependencies": [KNOWN, UNASKED]}), 1, "NOT AUDITED: 1 of 2 packages"),
        (json.dumps({"dependencies": [WELL, UNASKED]}), 0, "NOT AUDITED: 1 of 2 packages"),
        ("", 0, "NOT AUDITED: the source of advisories does not answer"),
    ],
)
def test_what_is_known_fails_and_what_is_not_known_is_told(answer, code, told, monkeypatch, capsys):
    loaded = importlib.util.spec_from_file_location("audit", FILE)
    audit = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(audit)
    asked = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, answer, "")

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main(["a.lock", "b.lock"]) == code
    assert told in capsys.readouterr().err
    assert asked[0][3:7] == ["--requirement", "a.lock", "--requirement", "b.lock"]
