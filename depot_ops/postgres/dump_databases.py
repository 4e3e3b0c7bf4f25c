"""Which databases are dumped: the depot's, those that a studio names beside it, and those of other servers."""

from collections import Counter

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from depot_ops.postgres.dump import DumpOptions
from depot_ops.settings import DumpChoiceSettings, SettingsError


def dumped_databases(depot_url: str, settings: DumpChoiceSettings) -> list[str]:
    """The addresses of all databases to dump, the depot's first. Raises SettingsError, which quotes no address."""
    names = [name for part in settings.backup_databases.split(",") if (name := part.strip())]
    elsewhere = settings.backup_database_urls.get_secret_value().split()
    try:
        urls = [depot_url, *(make_conninfo(depot_url, dbname=name) for name in names), *elsewhere]
        databases = Counter(conninfo_to_dict(url).get("dbname") for url in urls)
    except psycopg.Error:
        # Not chained: the parser's own message repeats parts of the address.
        raise SettingsError(
            "DEPOT_DUMP_URL, BACKUP_DATABASE_URLS: a database address is not of the form"
            " postgresql://role:password@host:port/name"
        ) from None
    # Dumps are kept and proved by the name of their database.
    if unclear := [str(name) for name, times in databases.items() if times > 1 or not name]:
        raise SettingsError(f"BACKUP_DATABASES and BACKUP_DATABASE_URLS: {unclear[0]} is named twice, or has no name")
    return urls


def dump_options(settings: DumpChoiceSettings) -> DumpOptions:
    """How the environment wants dumps written."""
    return DumpOptions(settings.backup_format, settings.backup_jobs, role_passwords=settings.backup_role_passwords)
