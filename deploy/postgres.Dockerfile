# PostgreSQL as the depot's primary and standby run it: who may come in, and how a standby makes itself.
FROM postgres:18.1-bookworm
LABEL org.opencontainers.image.title="asset-depot-postgres" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.description="PostgreSQL with the depot's access rules and its standby's start"
RUN install -d -o postgres -g postgres -m 0700 /wal_spool
COPY deploy/postgres/pg_hba.conf /etc/asset-depot/pg_hba.conf
COPY --chmod=0755 deploy/postgres/standby.sh /usr/local/bin/depot-standby
USER 999:999
