"""docker-compose.yml, read strictly."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


class StrictLoader(yaml.SafeLoader):
    """A key that comes twice is an error; YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if len(own) != len(set(own)):
            raise yaml.constructor.ConstructorError(None, None, f"a key comes twice in {own}", node.start_mark)
        return super().construct_mapping(node, deep)


def interpolated(value: Any) -> Any:
    """With ${NAME:-default} and $$ as compose reads them, in an environment that sets nothing."""
    if isinstance(value, dict):
        return {key: interpolated(one) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one) for one in value]
    if isinstance(value, str):
        return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value).replace("$$", "$")
    return value


@pytest.fixture(scope="session")
def compose_text() -> str:
    return (REPOSITORY / "docker-compose.yml").read_text()


@pytest.fixture(scope="session")
def compose(compose_text: str) -> dict[str, Any]:
    return yaml.load(compose_text, StrictLoader)


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return interpolated(compose["services"])
