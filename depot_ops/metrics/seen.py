"""What was found, and about what."""

from dataclasses import dataclass

from depot_ops.evidence import Finding


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding, and the server that it is about where there are several; of a check of Dagster's, its asset."""

    finding: Finding
    node: str = ""
    asset: str = ""
