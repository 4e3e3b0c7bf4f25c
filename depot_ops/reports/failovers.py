"""The document of a failover, written by whatever carried it out: why, who, when, what was fenced, what was lost."""

from datetime import datetime
from pathlib import Path

from depot_ops.durable import write_whole
from depot_ops.replicas.create import Place
from depot_ops.replicas.failover import Failover, finish

DIRECTORY = "failovers"  # in the directory of the backups
NAME_FORMAT = "failover-%Y%m%dT%H%M%SZ"


def evidence_directory(failover: Failover, backup_dir: Path) -> Path:
    """Where the lost primary's log is kept, beside the document."""
    return backup_dir / DIRECTORY / failover.started_at.strftime(NAME_FORMAT)


def document_failover(
    place: Place, failover: Failover, backup_dir: Path, archive: Path | None
) -> tuple[Failover, Path, Path]:
    """The last step of a failover: keep the end of the lost primary's log, and write the documents. Raises OSError."""
    failover = finish(place, failover, evidence_directory(failover, backup_dir), archive)
    return failover, *write_documents(failover, backup_dir)


def write_documents(failover: Failover, backup_dir: Path) -> tuple[Path, Path]:
    """Leave the failover as JSON and as Markdown in `backup_dir`/failovers, and say where. Raises OSError."""
    directory = backup_dir / DIRECTORY
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = directory / (failover.started_at.strftime(NAME_FORMAT) + ".json")
    page = document.with_suffix(".md")
    write_whole(page, as_markdown(failover))
    write_whole(document, failover.model_dump_json(indent=2) + "\n")
    return document, page


def newest_document(backup_dir: Path) -> Path | None:
    """The page of the last failover, None when there was none."""
    return max((backup_dir / DIRECTORY).glob("failover-*.md"), default=None)


def as_markdown(failover: Failover) -> str:
    """The failover as a page for the wiki."""
    terms = failover.terms
    lost = "nobody knows how much" if failover.lost_bytes is None else f"{failover.lost_bytes:,} bytes of log at most"
    allowed = f"accepted: {_plain(terms.reason)}" if terms.accept_data_loss else f"{terms.max_loss_bytes:,} allowed"
    text = [
        f"# Failover of {_moment(failover.started_at)}",
        "",
        f"**{failover.target} is the primary** on timeline {failover.timeline}, cluster epoch {failover.epoch}.",
        "",
        f"- Why: {_plain(failover.reason)}",
        f"- Lost: {lost} ({allowed})",
        f"- Cluster {failover.system_identifier}, timeline {failover.old_timeline} ended for us at {failover.fork_lsn}",
        f"- Began {_moment(failover.started_at)}, promoted {_moment(failover.promoted_at)}, first write"
        f" {_moment(failover.first_write_at)}, ended {_moment(failover.finished_at)}",
        "",
        "## How the loss was seen",
        "",
        *(f"- {_plain(line)}" for line in failover.seen or ("a person said so",)),
        "",
        "## What was fenced",
        "",
        *(f"- {name}: {_plain(proof)}" for name, proof in failover.fenced.items()),
        *(f"- **overruled**: {_plain(problem)}" for problem in failover.problems),
        "",
        "## What the lost primary had",
        "",
    ]
    for tail in failover.tail:
        text += [f"- {tail.node}: its log ends at {tail.end_lsn or 'a place nobody knows'}"]
        text += [f"  - kept {tail.directory}/{name}, SHA-256 `{sha256}`" for name, sha256 in tail.kept.items()]
        text += [f"  - handed to the archive: {name}" for name in tail.archived]
        text += [f"  - **not all was kept**: {_plain(tail.problem)}"] if tail.problem else []
    nodes = ", ".join(f"`depot-ops replica rejoin {name}`" for name in failover.fenced)
    text += ["", "## What is left to do", "", f"- {nodes or 'Make a standby: `depot-ops replica create`'}", ""]
    return "\n".join(text)


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC" if moment else "never"


def _plain(text: str) -> str:
    return " ".join(text.split())
