#!/bin/sh
# Patroni's on_role_change: begin a cluster epoch on a server that becomes the primary, so that the depot takes none of
# before (docs/adr/0017-patroni.md). Patroni adds the event, the new role and the scope, and does not wait for us.
#   DEPOT_MEMBER                 the name of this member, as PATRONI_NAME
#   PGHOST, PGPORT               where its server listens
#   POSTGRES_PASSWORD_FILE       the password of the role postgres, where one is asked for
set -eu
[ "${2:?}" = primary ] || exit 0
: "${DEPOT_MEMBER:?}"
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || export PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
# An epoch must not wait for a standby that is lost.
export PGUSER=postgres PGDATABASE=depot PGCONNECT_TIMEOUT=2 PGOPTIONS="-c synchronous_commit=local"

# Called while it is being promoted.
looks=0
until [ "$(psql -qAtXc 'SELECT pg_is_in_recovery()')" = f ]; do
    looks=$((looks + 1))
    [ "$looks" -lt 600 ] || { echo "$DEPOT_MEMBER does not take writes: no cluster epoch was begun" >&2; exit 1; }
    sleep 0.1
done
epoch=$(psql -qAtX -v ON_ERROR_STOP=1 -v member="$DEPOT_MEMBER" <<'SQL'
SELECT begin_cluster_epoch(:'member', 'Patroni promoted it');
SQL
)
echo "$DEPOT_MEMBER began the cluster epoch $epoch"
