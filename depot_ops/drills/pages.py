"""A drill's record for people: Markdown, and one page of HTML that needs nothing but itself."""

from html import escape
from typing import Any

Document = dict[str, Any]
Row = tuple[str, ...]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
th, td { border: 1px solid #d0d7de; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: #f6f8fa } .passed, .healthy { color: #116329 } .failed, .unhealthy { color: #a40e26 }
.unfinished, .unknown { color: #7d4e00 }
"""
FIGURES = {
    "rto_seconds": "Recovery time (RTO)",
    "fetch_seconds": "of it, fetching and unpacking",
    "replay_seconds": "of it, replaying",
    "open_seconds": "of it, opening",
    "verify_seconds": "Verifying, while users could work",
    "rpo_seconds": "Recovery point (RPO)",
}


def as_markdown(record: Document) -> str:
    """The record as a Markdown document."""
    parts = [f"# {_title(record)}", record["reason"]]
    for heading, titles, rows in _tables(record):
        lines = [titles, tuple("---" for _ in titles), *(tuple(map(_cell, row)) for row in rows)]
        parts += [f"## {heading}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def as_html(record: Document) -> str:
    """The record as one page of HTML."""
    title = escape(_title(record))
    body = [f'<h1 class="{record["result"]}">{title}</h1>', f"<p>{escape(record['reason'])}</p>"]
    for heading, titles, rows in _tables(record):
        body.append(f"<h2>{heading}</h2><table><tr>{''.join(f'<th>{name}</th>' for name in titles)}</tr>")
        body += [f"<tr>{''.join(_data(cell) for cell in row)}</tr>" for row in rows]
        body.append("</table>")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return "\n".join(["<!doctype html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>", ""])


def _title(record: Document) -> str:
    return f"Restore drill {record['label']} ({record['kind']}): {record['result']}"


def _tables(record: Document) -> list[tuple[str, Row, list[Row]]]:
    tables: list[tuple[str, Row, list[Row]]] = [
        ("Figures", ("Figure", "Measured"), _figures(record["figures"])),
        ("What was restored", ("What", "Which"), _restored(record)),
    ]
    if record["findings"]:
        found: list[Row] = [(f["status"], f["check"], f["detail"]) for f in record["findings"]]
        tables.append(("What was proved", ("Result", "Check", "Seen"), found))
    return tables


def _figures(figures: Document) -> list[Row]:
    times = [(title, _seconds(figures.get(name))) for name, title in FIGURES.items()]
    rest = [(name.replace("_", " "), _number(value)) for name, value in figures.items() if name not in FIGURES]
    return [*times, *rest]


def _restored(record: Document) -> list[Row]:
    rows: list[Row] = [
        ("Began", record["started_at"]),
        ("Ended", record["finished_at"] or "not"),
        ("Backup", record["backup"] or "none"),
        ("From", record["from_place"] or "where it lies"),
        ("Cluster", str(record["system_identifier"] or "not known")),
        ("PostgreSQL", record["tool_version"]),
    ]
    if canary := record["canary"]:
        rows.append(("Canary", f"{canary['id']}, written {canary['written_at']}, in {canary['segment']}"))
    if restored := record["restored"]:
        rows.append(("Backups", " + ".join(restored["backups"])))
        rows.append(("Log", f"{restored['segments']} segments, to {restored['last_segment']}"))
        rows += [("Streamed to", restored["streamed_until"])] if restored["streamed_until"] else []
        rows.append(("Ended at", f"{restored['ended_lsn']} of timeline {restored['recovered_timeline']}"))
    return rows


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,.3f} s"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _data(text: str) -> str:
    status = f' class="{text}"' if text in ("healthy", "unhealthy", "unknown") else ""
    return f"<td{status}>{escape(text)}</td>"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
