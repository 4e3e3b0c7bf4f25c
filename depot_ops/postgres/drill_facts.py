"""What restore drills have left as evidence in `<backup dir>/drills/`, as far as retention asks."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from depot_ops.postgres.retention import DrillFact

DIRECTORY = "drills"
BASE = "base"
PASSED = "passed"


def read_drill_facts(backup_dir: Path, from_place: str | None = None) -> list[DrillFact]:
    """Every drill of a base backup that lay here, or at `from_place`: one copy proves nothing of the other.

    What cannot be read proves nothing either, and is left out.
    """
    facts = (_fact(path, from_place) for path in sorted((backup_dir / DIRECTORY).glob("*.json")))
    return [fact for fact in facts if fact is not None]


def _fact(path: Path, from_place: str | None) -> DrillFact | None:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        if document["kind"] != BASE or document.get("from_place") != from_place:
            return None
        return DrillFact(
            finished_at=document["finished_at"],
            passed=document["result"] == PASSED,
            base_label=document["backup"],
            replayed_to_lsn=document.get("replayed_to_lsn"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
