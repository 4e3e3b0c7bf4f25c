#!/bin/sh
# Start the standby; where there is no data yet, copy the primary first. After a promotion its data decides: no
# standby.signal, no standby.
#   PRIMARY_HOST, PRIMARY_PORT, PGDATA   where the primary is, and where the copy goes
#   DEPOT_REPLICATION_PASSWORD_FILE      the password of depot_replication
# What follows on the command line is given to postgres.
set -eu
: "${PRIMARY_HOST:?}" "${PRIMARY_PORT:?}" "${PGDATA:?}" "${DEPOT_REPLICATION_PASSWORD_FILE:?}"
SLOT=depot_standby

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    PGPASSWORD=$(cat "$DEPOT_REPLICATION_PASSWORD_FILE")
    export PGPASSWORD
    address="host=$PRIMARY_HOST port=$PRIMARY_PORT user=depot_replication"
    rm -rf "$PGDATA.partial"
    mkdir -p -m 0700 "$PGDATA.partial"
    psql -qAtX "$address dbname=postgres" -c "SELECT pg_create_physical_replication_slot('$SLOT', true)
        WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '$SLOT')" >/dev/null
    # It moves into place when it is whole: a copy that was interrupted is made anew.
    pg_basebackup -d "$address application_name=$SLOT" -D "$PGDATA.partial" -S "$SLOT" -X stream -c fast -R --no-password
    rmdir "$PGDATA" 2>/dev/null || true
    mv "$PGDATA.partial" "$PGDATA"
    unset PGPASSWORD
fi
exec postgres -D "$PGDATA" "$@"
