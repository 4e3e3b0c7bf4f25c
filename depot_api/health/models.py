"""Health on the wire."""

from enum import StrEnum

from pydantic import BaseModel


class HealthStatus(StrEnum):
    OK = "ok"
    UNAVAILABLE = "unavailable"


class DatabaseCheck(BaseModel):
    status: HealthStatus
    reason: str | None = None


class StorageCheck(BaseModel):
    status: HealthStatus
    reason: str | None = None
    free_bytes: int | None = None


class MigrationsCheck(BaseModel):
    status: HealthStatus
    reason: str | None = None
    current: str | None = None
    expected: str


class Checks(BaseModel):
    database: DatabaseCheck
    storage: StorageCheck
    migrations: MigrationsCheck


class Health(BaseModel):
    status: HealthStatus
    checks: Checks


class Liveness(BaseModel):
    status: HealthStatus = HealthStatus.OK
