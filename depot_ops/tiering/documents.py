"""YAML documents that people write: what is wrong in one is told with its line and field."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Document = TypeVar("Document", bound=BaseModel)
Location = tuple[int | str, ...]


class DocumentError(Exception):
    """A document cannot be used; the message has one line for each thing that is wrong."""


def load_document(path: Path, model: type[Document]) -> Document:
    """Raises DocumentError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} cannot be read: {error}") from error
    return parse_document(text, model, str(path))


def parse_document(text: str, model: type[Document], name: str) -> Document:
    """Raises DocumentError, whose lines begin with `name` and the line's number."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise DocumentError(f"{name}{line}: this is not YAML: {getattr(error, 'problem', None) or error}") from error
    if root is None:
        raise DocumentError(f"{name}: the document is empty")
    if twice := _key_given_twice(root):
        raise DocumentError(f"{name}:{twice.start_mark.line + 1}: {twice.value}: this field is given twice")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [
            f"{name}:{_line(root, wrong['loc'])}: {_field(wrong['loc'])}{wrong['msg']}" for wrong in error.errors()
        ]
        raise DocumentError("\n".join(lines)) from error


def _field(location: Location) -> str:
    """`rules[2].when.path: `; nothing for the document as a whole."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return f"{text.removeprefix('.')}: " if text else ""


def _line(node: yaml.Node, location: Location) -> int:
    """Of the innermost part of `location` that the document has: a field that is missing has no line of its own."""
    line: int = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode) and (pair := _pair(node, part)):
            key, node = pair
            line = key.start_mark.line + 1
            continue
        else:
            break
        line = node.start_mark.line + 1
    return line


def _pair(node: yaml.MappingNode, name: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((key, value) for key, value in node.value if key.value == str(name)), None)


def _key_given_twice(node: yaml.Node) -> yaml.Node | None:
    """YAML forbids it and its parser lets the last one win: a rule would be gone without a word."""
    if isinstance(node, yaml.SequenceNode):
        return next((found for one in node.value if (found := _key_given_twice(one))), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    seen = set()
    for key, value in node.value:
        if key.value in seen or (found := _key_given_twice(value)):
            return key if key.value in seen else found
        seen.add(key.value)
    return None
