"""The `depot` command's entry: its subcommands, and one place where errors become exit codes."""

import os
import sys
from typing import TextIO

import typer

from depot_api.cli import (
    account,
    administration,
    catalogue,
    changelists,
    differences,
    locks,
    merges,
    obliterations,
    opened,
    projects,
    shelves,
    tokens,
    trees,
    users,
    webhooks,
)
from depot_api.cli.output import JSON_FLAG, ExitCode, note, report
from depot_api.client.problems import DepotError, Interrupted

# Completion options take the name of a shell: a guess from the process tree depends on who asks.
NAME_THE_SHELL = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Take directory trees into an asset depot, and out of it, whole.\n\n"
    "Exit codes: 0 done; 1 the depot refused, or there are differences; 2 wrong usage; "
    "3 the depot cannot be reached or failed; 130 interrupted.\n\n"
    "DEPOT_URL and DEPOT_TOKEN serve scripts without `depot login`.",
)
app.command()(account.login)
app.command()(account.whoami)
app.add_typer(projects.projects, name="project")
projects.projects.command("archive")(administration.archive_project)
projects.projects.command("unarchive")(administration.unarchive_project)
projects.projects.command("members")(administration.members)
projects.projects.command("permissions")(administration.permissions)
projects.projects.command("typemap")(administration.typemap)
app.add_typer(projects.branches, name="branch")
app.add_typer(tokens.tokens, name="token")
app.add_typer(users.users, name="user")
app.add_typer(webhooks.webhooks, name="webhook")
app.command()(trees.submit)
app.command()(trees.sync)
app.command()(trees.status)
app.command()(trees.verify)
app.command("open")(opened.open_changed)
app.command()(opened.edit)
app.command()(opened.add)
app.command()(opened.delete)
app.command()(opened.move)
app.command()(opened.revert)
app.command()(projects.log)
app.command()(changelists.changes)
app.command()(changelists.describe)
app.add_typer(changelists.reviews, name="review")
app.command()(changelists.undo)
app.command()(changelists.abandon)
app.command()(catalogue.search)
app.command()(catalogue.tag)
app.command()(differences.diff)
app.add_typer(catalogue.labels, name="label")
app.command()(shelves.shelve)
app.command()(shelves.unshelve)
app.command()(shelves.shelves)
app.command()(merges.merge)
app.command()(merges.resolve)
app.command()(merges.merges)
app.command()(locks.lock)
app.command()(locks.unlock)
app.command()(locks.locks)
app.command()(obliterations.obliterate)
app.command()(obliterations.obliterations)


def main() -> None:
    """Run the command line, and exit with an ExitCode."""
    os.environ.setdefault(NAME_THE_SHELL, "1")
    as_json = JSON_FLAG in sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        _print_any_name(stream)
    try:
        app(prog_name="depot")
    except DepotError as error:
        sys.exit(report(error, as_json))
    except SystemExit as stop:
        if stop.code == ExitCode.INTERRUPTED:
            report(Interrupted("Interrupted. Run the same command again: it goes on where it stopped."), as_json)
        raise
    except Exception as error:
        if os.environ.get("DEPOT_DEBUG"):
            raise
        note(f"Error: the depot command failed in a way nobody thought of: {type(error).__name__}: {error}")
        note("Run it again with DEPOT_DEBUG=1 and report what it prints.")
        sys.exit(ExitCode.UNKNOWN)


def _print_any_name(stream: TextIO) -> None:
    """File names that are not valid in the terminal's encoding are shown escaped."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
