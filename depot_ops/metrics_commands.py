"""`depot-ops metrics`: what the checks find, for Prometheus."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import structlog
import typer
from prometheus_client import start_http_server

from depot_ops.console import failed
from depot_ops.durable import write_whole
from depot_ops.evidence import Status
from depot_ops.metrics.exposition import exposition, registry_of
from depot_ops.metrics.probes import Watcher, configured_probes
from depot_ops.settings import MetricsSettings, SettingsError, load

POLL_SECONDS = 5.0
READABLE_BY_ALL = 0o644  # node exporter has an account of its own

app = typer.Typer()
log = structlog.get_logger("depot_ops")


@app.command()
def metrics(
    textfile: Annotated[Path | None, typer.Option(help="A *.prom file in node exporter's textfile directory.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Serve /metrics here until stopped.")] = None,
) -> None:
    """Ask what the environment names, once: to standard output, or whole into a file; or serve it.

    Looks at what BACKUP_DIR, WAL_ARCHIVE_DIR, DEPOT_REPLICATION_URL and the like name; what is not set is absent.
    Example: depot-ops metrics --listen 127.0.0.1:9188
    """
    try:
        watcher = Watcher(configured_probes(load(MetricsSettings)))
        if listen:
            _serve(watcher, listen)
            return
        watcher.refresh()
        text = exposition(watcher.seen())
        if textfile is None:
            typer.echo(text, nl=False)
            return
        write_whole(textfile, text, READABLE_BY_ALL)
    except (SettingsError, OSError) as error:
        raise failed(error, Status.UNKNOWN) from None


def _serve(watcher: Watcher, address: str) -> None:
    """Raises OSError when the port is taken."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter("give it as HOST:PORT, for example 127.0.0.1:9188", param_hint="--listen")
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    server, _thread = start_http_server(int(port), host, registry_of(watcher.seen))
    log.info("metrics are served", address=f"{host}:{server.server_port}")
    while not stop.is_set():
        watcher.refresh()
        stop.wait(POLL_SECONDS)
    server.shutdown()
