"""The archive of the log, as Dagster sees it: the server and the collector fill it, here it is only looked at."""

import dagster as dg

wal_archive = dg.AssetSpec(
    "wal_archive",
    group_name="backup",
    owners=["team:depot-operations"],
    kinds={"postgres"},
    description=(
        "Every segment of the primary's log since the oldest kept base backup, in WAL_ARCHIVE_DIR. The server writes"
        " them into its spool and `depot-ops wal collect` verifies and stores them; Dagster does not make them. What is"
        " missing here cannot be recovered to."
    ),
)
