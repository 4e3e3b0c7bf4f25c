"""`python deploy/audit.py LOCK…`: fails when an advisory is known against a version of a lock.

A source of advisories that does not answer is told and fails nothing: nobody's build may depend on a foreign host.
"""

import json
import subprocess
import sys
from typing import Any

TIMEOUT_SECONDS = 300
# Advisories that do not concern us, each with the reason.
ACCEPTED: dict[str, str] = {}


def main(locks: list[str]) -> int:
    given = [word for lock in locks for word in ("--requirement", lock)]
    ignored = [word for advisory in ACCEPTED for word in ("--ignore-vuln", advisory)]
    options = ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", *given, *ignored, *options]
    complaint = f"nothing came within {TIMEOUT_SECONDS} s"
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
        complaint = done.stderr.strip().rpartition("\n")[2]
        lines, failed = judge(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        lines, failed = [f"NOT AUDITED: the source of advisories does not answer ({complaint})"], False
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return int(failed)


def judge(dependencies: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """What is to be told, and whether something is known."""
    known = [
        f"{one['name']} {one['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'nothing yet'}"
        for one in dependencies
        for found in one.get("vulns", [])
    ]
    skipped = [one["name"] for one in dependencies if "skip_reason" in one]
    if skipped:
        unasked = f"NOT AUDITED: {len(skipped)} of {len(dependencies)} packages, of which no advisory could be asked"
        return [*known, unasked], bool(known)
    return [*known, f"audited: {len(dependencies)} packages, {len(known)} advisories"], bool(known)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
