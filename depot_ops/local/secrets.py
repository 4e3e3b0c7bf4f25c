"""What the embedded stack generates at its first start and keeps: every password, key and port."""

import json
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from depot_ops.durable import write_private


def _password() -> str:
    return secrets.token_urlsafe(24)


class StackSecrets(BaseModel):
    """Kept in `secrets.json`, readable by its owner only. Nothing has a default that two installations would share."""

    model_config = ConfigDict(extra="forbid")

    superuser_password: str = Field(default_factory=_password)
    owner_password: str = Field(default_factory=_password)
    service_password: str = Field(default_factory=_password)
    dump_password: str = Field(default_factory=_password)
    ops_password: str = Field(default_factory=_password)
    replication_password: str = Field(default_factory=_password)
    monitor_password: str = Field(default_factory=_password)
    pgadmin_password: str = Field(default_factory=_password)
    dagster_password: str = Field(default_factory=_password)
    admin_password: str = Field(default_factory=_password)
    jwt_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(48))
    # Made before the account that it is for: the Dagster webserver starts beside the database, and needs it.
    admin_token: str = Field(default_factory=lambda: f"depot_{secrets.token_urlsafe(32)}")

    @classmethod
    def load(cls, path: Path) -> "StackSecrets":
        found = cls.model_validate_json(path.read_text()) if path.exists() else cls()
        if found.model_fields_set != cls.model_fields.keys():  # new, or of a release that had fewer
            found.save(path)
        return found

    def save(self, path: Path) -> None:
        write_private(path, self.model_dump_json(indent=2))


def write_private_json(path: Path, document: dict[str, object]) -> None:
    write_private(path, json.dumps(document, indent=2))
