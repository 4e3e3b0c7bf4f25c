"""The revision that the service asks for is the one that alembic upgrades to."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from depot_api.database import migrate, revision


def test_the_expected_revision_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    assert revision.expected_revision() == ScriptDirectory.from_config(config).get_current_head()
