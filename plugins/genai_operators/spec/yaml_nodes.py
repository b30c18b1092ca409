"""YAML with line numbers at no extra cost: composed once by libyaml, built from nodes that remember their place.

PyYAML takes the last of two equal keys in silence; here that is an error, as a model file is read by people.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Place:
    """Where something stands in a file; both count from 1."""

    line: int
    column: int


class YamlError(ValueError):
    """The text is no YAML that we accept. ``problems`` are (place, what is wrong)."""

    def __init__(self, problems: list[tuple[Place, str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain value, and the nodes that know where each part stands."""

    value: Any
    root: yaml.Node | None

    def place_of_value(self, path: tuple[str | int, ...]) -> Place:
        """Where the value at ``path`` begins; the nearest enclosing value if the path leads nowhere."""
        node = self.root
        for key in path:
            child = _child(node, key)
            if child is None:
                break
            node = child[1]
        return _place(node)

    def place_of_key(self, path: tuple[str | int, ...]) -> Place:
        """Where the last key of ``path`` stands; the enclosing value if that key is absent."""
        node = self.root
        for key in path[:-1]:
            child = _child(node, key)
            if child is None:
                return _place(node)
            node = child[1]
        child = _child(node, path[-1]) if path else None
        return _place(child[0] if child else node)


def parse_yaml(text: str) -> Document:
    """Parse one YAML document with safe tags only.

    :raises YamlError: bad syntax, a tab as indentation, a key that occurs twice, or more than one document.
    """
    try:
        loader = _LOADER(text)
        try:
            root = loader.get_single_node()
            if root is not None and (duplicates := list(_duplicate_keys(root, set()))):
                raise YamlError(duplicates)
            return Document(value=loader.construct_document(root) if root is not None else None, root=root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise YamlError([_explain(error, text)]) from error
    except yaml.YAMLError as error:
        raise YamlError([(Place(1, 1), f"is not valid YAML: {error}")]) from error


def _duplicate_keys(node: yaml.Node, seen: set[int]) -> Iterator[tuple[Place, str]]:
    if id(node) in seen:  # an alias may even refer to its own parent
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicate_keys(item, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines and key.value != "<<":
                    yield _place(key), f"key {key.value!r} occurs twice; the first is on line {lines[key.value]}"
                lines.setdefault(key.value, key.start_mark.line + 1)
            yield from _duplicate_keys(value, seen)


def _child(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((k, v) for k, v in node.value if k.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None


def _place(node: yaml.Node | None) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1) if node else Place(1, 1)


def _explain(error: yaml.MarkedYAMLError, text: str) -> tuple[Place, str]:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return place, "a tab indents this line; YAML wants spaces"
    return place, f"is not valid YAML: {error.problem or error.context}"
