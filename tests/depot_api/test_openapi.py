"""schemathesis over the OpenAPI document, all its checks, stateful too, with a bounded number of examples."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("schemathesis.toml")
# An event stream never ends, and no generator makes a pack: both have tests of their own.
NOT_FUZZED = r"(/events/stream|/objects/pack)$"


# The stateful phase has a run of its own: after the others it is left out when their time is up. It begins after 5 s.
@pytest.mark.parametrize(("phases", "seconds"), [("examples,coverage,fuzzing", 20), ("stateful", 20)])
def test_schemathesis_finds_nothing(own_api, running_api_factory, tmp_path, phases, seconds):
    make_project, _ = running_api_factory
    make_project(own_api).add("seen", b"something to find")
    command = [
        Path(sys.executable).with_name("schemathesis"),
        *("--config-file", CONFIG, "--no-color", "run", f"{own_api.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {own_api.token}", "--exclude-path-regex", NOT_FUZZED),
        *("--phases", phases, "--generation-deterministic", "--report-json-path", tmp_path / "report.json"),
        *("--max-examples", "2", "--max-time", str(seconds), "--request-timeout", "20"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    ran = json.loads((tmp_path / "report.json").read_bytes())["phases"]
    assert ran["stateful" if phases == "stateful" else "coverage"]["status"] == "success", ran
