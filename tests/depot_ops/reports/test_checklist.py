"""The checklist is signed off only with evidence for every line, and the document says who signed and what was seen."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from depot_ops.cli import app
from depot_ops.postgres.dump_record import find_backups
from depot_ops.postgres.wal.collector import CollectorRunning
from depot_ops.reports.checklist import Checklist, ChecklistScope, Line, walk


@contextmanager
def collecting(pair) -> Iterator[None]:
    """A collector, as one runs beside every primary."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.05):
            try:
                pair.collect()
            except CollectorRunning:
                continue

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def arguments(pair, backup_dir, tmp_path) -> dict[str, str]:
    document = tmp_path / "failover.md"
    document.write_text("# Failover of Monday\n\nThe primary's disk fails.\n")
    pair.stream()
    return {
        "--signed-by": "Ada Lovelace",
        "--backup-dir": str(backup_dir),
        "--archive-dir": str(pair.archive_root),
        "--primary-url": pair.primary.url(),
        "--replica-url": pair.standby.url(),
        "--dump-url": pair.primary.url(),
        "--failover-document": str(document),
    }


def run(pair, arguments: dict[str, str]) -> Result:
    with collecting(pair):
        return CliRunner().invoke(app, ["dr-checklist", *(word for item in arguments.items() for word in item)])


def left(backup_dir: Path) -> tuple[Checklist, str]:
    (document,) = (backup_dir / "checklists").glob("*.json")
    return Checklist.model_validate_json(document.read_text()), document.with_suffix(".md").read_text()


def statuses(checklist: Checklist) -> dict[Line, str]:
    return {line.line: str(line.status) for line in checklist.lines}


def test_a_checklist_with_everything_in_order_is_signed_off_with_its_evidence(pair, arguments, backup_dir):
    result = run(pair, arguments)
    assert result.exit_code == 0, result.output
    checklist, page = left(backup_dir)
    assert (checklist.signed_off, checklist.signed_by, checklist.is_intact) == (True, "Ada Lovelace", True)
    assert statuses(checklist) == dict.fromkeys(Line, "healthy")
    assert "**Signed off** by Ada Lovelace" in page
    assert page.count("- [x] ") == 5
    evidence = {line.line: line.evidence for line in checklist.lines}
    assert evidence[Line.REPLICA_CAUGHT_UP][0].figures["behind_bytes"] == 0
    assert evidence[Line.SAFETY_BACKUP][0].figures["file"] == find_backups(backup_dir)[-1].name
    assert "00000001" in evidence[Line.WAL_CAPTURED][0].detail
    assert "Failover of Monday" in evidence[Line.FAILOVER_DOCUMENTED][0].detail
    assert pair.primary.password not in page + checklist.model_dump_json()


def test_a_document_that_was_changed_is_found(pair, arguments, backup_dir):
    run(pair, arguments)
    checklist, _ = left(backup_dir)
    assert not checklist.model_copy(update={"signed_by": "Somebody else"}).is_intact


def test_what_is_not_given_is_unknown_and_nothing_is_signed_off(pair, arguments, backup_dir):
    kept = {name: arguments[name] for name in ("--signed-by", "--backup-dir")}
    result = run(pair, kept)
    assert result.exit_code == 3
    checklist, page = left(backup_dir)
    assert not checklist.signed_off
    assert list(statuses(checklist).values()) == ["healthy", *["unknown"] * 4]
    assert "NOT signed off" in page
    assert page.count("- [ ] ") == 4


def test_every_line_is_walked_also_behind_one_that_fails(pair, arguments, backup_dir, tmp_path):
    dump = find_backups(backup_dir)[-1]
    dump.write_bytes(dump.read_bytes()[:-1])
    (tmp_path / "failover.md").write_text(" \n")
    result = run(pair, arguments | {"--dump-url": "postgresql://u:secret-word@127.0.0.1:1/postgres"})
    assert result.exit_code == 1
    checklist, page = left(backup_dir)
    healthy = {line for line, status in statuses(checklist).items() if status == "healthy"}
    assert healthy == {Line.WAL_CAPTURED, Line.REPLICA_CAUGHT_UP}
    assert "secret-word" not in result.output + page


def test_a_standby_that_does_not_catch_up_is_unhealthy_with_its_bytes(pair, backup_dir):
    pair.execute("SELECT pg_wal_replay_pause()", pair.standby.url())
    try:
        pair.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', 5000))")
        urls = {"primary_url": pair.primary.url(), "replica_url": pair.standby.url()}
        checklist = walk(ChecklistScope(backup_dir=backup_dir, catch_up_seconds=0.5, **urls), "Ada")
    finally:
        pair.execute("SELECT pg_wal_replay_resume()", pair.standby.url())
    finding = checklist.lines[3].evidence[0]
    assert (finding.check, finding.status) == (Line.REPLICA_CAUGHT_UP, "unhealthy")
    assert int(finding.figures["behind_bytes"]) > 5000


def test_nobody_cannot_sign(pair, arguments, backup_dir):
    assert run(pair, arguments | {"--signed-by": " "}).exit_code == 2
    assert not (backup_dir / "checklists").exists()


def test_the_document_goes_where_it_is_wanted_and_to_stdout(pair, arguments, tmp_path):
    result = run(pair, arguments | {"--output-dir": str(tmp_path / "wiki")})
    assert len(list((tmp_path / "wiki").iterdir())) == 2
    assert "# Disaster-recovery checklist" in result.stdout
    (document,) = (tmp_path / "wiki").glob("*.json")
    assert json.loads(document.read_text())["signed_off"] is True
