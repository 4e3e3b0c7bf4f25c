# One image for the service and the operations layer; the command decides which it is.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
COPY deploy/requirements.lock ./
RUN python -m venv /opt/asset-depot \
 && /opt/asset-depot/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY depot_api depot_api
COPY depot_ops depot_ops
# setuptools comes from the lock too: nothing is fetched that has no hash.
RUN /opt/asset-depot/bin/pip install --no-cache-dir --no-index --no-build-isolation --no-deps .

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="asset-depot" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.description="The depot service and its operations layer"
# 999 is postgres in its own image: the collector takes over segments that only their owner may read.
RUN useradd --system --uid 999 --home-dir /srv --shell /usr/sbin/nologin asset-depot \
 && install -d -o 999 -g 999 /srv/dagster_home /srv/dagster_home/storage /srv/dagster_home/logs \
    /srv/dagster_home/.logs_queue /var/lib/asset-depot /mirror /backups /wal_spool /wal_archive /drill
COPY --from=build /opt/asset-depot /opt/asset-depot
COPY dagster_home/dagster.yaml /srv/dagster_home/
COPY deploy/workspace.yaml /srv/
ENV PATH=/opt/asset-depot/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/srv/dagster_home
WORKDIR /srv
USER 999:999
ENTRYPOINT ["python", "-m", "depot_api.secret_files"]
CMD ["python", "-m", "depot_api", "--host", "0.0.0.0", "--port", "8000"]
