"""`python3 deploy/make_secrets.py [DIRECTORY]`: every secret of docker-compose.yml, random, each in a file of its own.

What is there stays, so that it can be run again. Who is told of alarms cannot be made up: ALERT_WEBHOOK_URL says it.
Needs nothing but Python.
"""

import os
import secrets
import sys
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent / "secrets"
PASSWORDS = (
    "postgres_password",
    "dagster_db_password",
    "depot_owner_password",
    "depot_service_password",
    "depot_dump_password",
    "depot_ops_password",
    "depot_replication_password",
    "depot_monitor_password",
    "depot_pgadmin_password",
    "depot_admin_password",
    "pgadmin_login_password",
    "grafana_admin_password",
    "patroni_restapi_password",
)
# Both servers are named: whichever takes writes is found after a failover too.
ANY_SERVER = "db:5432,standby:5432"
URLS = {
    "bootstrap_url": f"postgresql://postgres:{{postgres_password}}@{ANY_SERVER}/postgres?target_session_attrs=read-write",
    "database_owner_url": f"postgresql://depot_owner:{{depot_owner_password}}@{ANY_SERVER}/depot"
    "?target_session_attrs=read-write",
    "database_url": f"postgresql://depot_service:{{depot_service_password}}@{ANY_SERVER}/depot"
    "?target_session_attrs=read-write",
    "depot_dump_url": f"postgresql://depot_dump:{{depot_dump_password}}@{ANY_SERVER}/depot"
    "?target_session_attrs=primary",
    "depot_ops_url": f"postgresql://depot_ops:{{depot_ops_password}}@{ANY_SERVER}/depot?target_session_attrs=primary",
    "depot_replication_url": f"postgresql://postgres:{{postgres_password}}@{ANY_SERVER}/postgres"
    "?target_session_attrs=primary",
    "depot_replica_url": "postgresql://depot_monitor:{depot_monitor_password}@standby:5432/depot",
    "dagster_pg_url": "postgresql+psycopg2://dagster:{dagster_db_password}@dagster-db:5432/dagster",
}

# Nobody listens there: Alertmanager and Dagster keep what they could not tell, and say so in their logs.
NOBODY = "http://127.0.0.1:9/nobody-is-told-of-alarms"


def make_secrets(directory: Path, alert_webhook_url: str = "") -> None:
    """The directory is closed to others; its files are not, so that a container's account reads what it is given."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    made = {name: _kept(directory / name, secrets.token_urlsafe(24)) for name in PASSWORDS}
    _kept(directory / "jwt_secret", secrets.token_urlsafe(48))
    _kept(directory / "depot_token", f"depot_{secrets.token_urlsafe(32)}")
    for name, url in URLS.items():
        _kept(directory / name, url.format(**made))
    told = directory / "alert_webhook_url"
    if _kept(told, alert_webhook_url or NOBODY) == NOBODY:
        sys.stderr.write(f"Nobody is told of alarms. Remove {told}, and run this again with ALERT_WEBHOOK_URL set.\n")


def _kept(path: Path, secret: str) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    path.chmod(0o444)
    return secret


if __name__ == "__main__":
    make_secrets(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY, os.environ.get("ALERT_WEBHOOK_URL", ""))
