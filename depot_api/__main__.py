"""`python -m depot_api`: the service under uvicorn."""

import argparse
import os
import signal
import sys
import tempfile

import uvicorn
from pydantic import ValidationError

from depot_api.logs import configure as configure_logs
from depot_api.settings import Settings

# An upload that began before a restart gets this long to finish.
GRACEFUL_SHUTDOWN_SECONDS = 30
# Longer than load balancers keep idle connections, so that it is never the service that closes one in use.
KEEP_ALIVE_SECONDS = 75


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m depot_api", description="Run the depot service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    try:
        Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        sys.exit(f"The service cannot start with these settings. {wrong}. docs/settings.md lists them all.")
    configure_logs()
    # uvicorn has the signal again once it has stopped; by default it would end us before our directory is gone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="depot-metrics-") as metrics_dir:
        if options.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_dir
        uvicorn.run(
            "depot_api.app:create_app",
            factory=True,
            host=options.host,
            port=options.port,
            workers=options.workers,
            access_log=False,
            log_config=None,  # its loggers hand on to ours
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
            server_header=False,
        )


if __name__ == "__main__":
    main()
