"""Upgrading the schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def _config(owner_url: str = "") -> Config:
    config = Config(attributes={"owner_url": owner_url})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def upgrade(owner_url: str) -> None:
    """Bring the schema to the newest revision, as the owner role."""
    command.upgrade(_config(owner_url), "head")
