"""schemathesis over the OpenAPI document, all its checks, stateful too, with a bounded number of examples."""

import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).with_name("schemathesis.toml")
# An event stream never ends, and no generator makes a pack: both have tests of their own.
NOT_FUZZED = r"(/events/stream|/objects/pack)$"


def test_schemathesis_finds_nothing(own_api, running_api_factory, tmp_path):
    make_project, _ = running_api_factory
    make_project(own_api).add("seen", b"something to find")
    command = [
        Path(sys.executable).with_name("schemathesis"),
        *("--config-file", CONFIG, "--no-color", "run", f"{own_api.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {own_api.token}", "--exclude-path-regex", NOT_FUZZED),
        *("--phases", "examples,coverage,fuzzing,stateful", "--generation-deterministic"),
        *("--max-examples", "2", "--max-time", "25", "--request-timeout", "20"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Stateful" in done.stdout and "Coverage" in done.stdout
