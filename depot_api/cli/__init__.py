"""The `depot` command."""

from depot_api.cli.main import main

__all__ = ["main"]
