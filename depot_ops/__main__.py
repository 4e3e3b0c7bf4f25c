"""Where `depot-ops` starts: what a server runs for each segment must not wait for the rest to be imported."""

import sys

SERVER_HOOKS = (["wal", "push"], ["wal", "get"])


def main() -> None:
    """Run the command line."""
    if sys.argv[1:3] in SERVER_HOOKS:
        from depot_ops.postgres.wal.hooks import main as run_hook  # noqa: PLC0415

        run_hook(sys.argv[2:])
    from depot_ops.cli import main as run_command  # noqa: PLC0415

    run_command()


if __name__ == "__main__":
    main()
