"""The `depot-ops` command, for cron, CI and people: the same functions that Dagster calls."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from depot_api.logs import configure as configure_logs

# Each command, and the module that has it: only that one is imported when it runs, which halves the time to start.
GROUPS = {
    "backup": "backup_commands",
    "blobs": "blob_commands",
    "catalogue": "catalogue_commands",
    "drill": "drill_commands",
    "merges": "merge_commands",
    "replica": "replica_commands",
    "tier": "tier_commands",
    "wal": "wal_commands",
}
COMMANDS = {
    "up": "stack_commands",
    "migrate": "stack_commands",
    "run": "launch_commands",
    "health": "health_commands",
    "restore": "restore_commands",
    "restore-dump": "restore_commands",
    "disaster-restore": "disaster_commands",
    "report": "report_commands",
    "dr-checklist": "report_commands",
    "metrics": "metrics_commands",
}


class LazyGroup(TyperGroup):
    """Imports a command when it is asked for. After click's documentation, "Lazily loading subcommands"."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = GROUPS.get(cmd_name) or COMMANDS.get(cmd_name)
        if module is None:
            return None
        group = typer.main.get_group(import_module(f"depot_ops.{module}").app)
        group.name = cmd_name
        return group if cmd_name in GROUPS else group.get_command(ctx, cmd_name)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def depot_ops() -> None:
    """typer takes no app without a command of its own or a callback."""


def main() -> None:
    configure_logs()
    app()
