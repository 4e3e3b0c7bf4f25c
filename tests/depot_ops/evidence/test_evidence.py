"""Three answers, and the worst of them decides."""

import pytest

from depot_ops.evidence import Finding, Status, worst


def findings(*statuses: Status) -> list[Finding]:
    return [Finding(check="any", status=status, detail="") for status in statuses]


@pytest.mark.parametrize(
    ("statuses", "answer", "exit_code"),
    [
        ([Status.HEALTHY, Status.HEALTHY], Status.HEALTHY, 0),
        ([Status.HEALTHY, Status.UNKNOWN], Status.UNKNOWN, 3),
        ([Status.UNKNOWN, Status.UNHEALTHY, Status.HEALTHY], Status.UNHEALTHY, 1),
        ([], Status.UNKNOWN, 3),
    ],
)
def test_the_worst_finding_decides(statuses, answer, exit_code):
    assert worst(findings(*statuses)) is answer
    assert worst(findings(*statuses)).exit_code == exit_code
