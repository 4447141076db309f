"""The one reader of YAML: plain values only, and never more of them than there seem to be."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from sanet.structures import SanetError, first_line

# Far above what anyone writes by hand: a file of settings has some 2 kB, and nests three deep.
LARGEST, DEEPEST = 1_000_000, 50


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """``1e-3`` is a number, a date is a text, and a key that is there twice is a mistake."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in {"float", "timestamp"}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return dict(super().construct_mapping(node, deep=deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\d+\.\d*|\.?\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def parse(text: str) -> Any:
    """The value that a text writes: mappings, lists, texts, numbers, true, false and null.

    Raises:
        yaml.YAMLError: it is no YAML, is too large or too deep, or has aliases, which a few lines can make endless, or
            tags; in one line.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"it has more than {LARGEST} characters")
    depth = 0
    event: Any
    try:
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            problem = ""
            if depth > DEEPEST:
                problem = f"more than {DEEPEST} levels"
            elif isinstance(event, yaml.AliasEvent):
                problem = f"*{event.anchor}: aliases are not read, write it out"
            elif getattr(event, "tag", None) not in {None, "!"}:
                problem = "tags, which begin with an exclamation mark, are not read"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        where = f"line {place.line + 1}, column {place.column + 1}: " if place else ""
        raise yaml.YAMLError(f"{where}{error.problem or error.context}") from error
    except (ValueError, yaml.YAMLError) as error:  # of a number with thousands of digits; a character that is no text
        raise yaml.YAMLError(" ".join(str(error).split())) from error


def read_text(path: Path) -> str:
    """What a small file of text says; a SanetError where it is no such file, cannot be read, or is too large."""
    try:
        if not path.is_file():  # a device or a pipe has no end
            raise SanetError(f"{path} cannot be read: it is no file")
        if (size := path.stat().st_size) > LARGEST:
            raise SanetError(f"{path} has {size} bytes; settings have {LARGEST} at most")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SanetError(f"{path} cannot be read: {first_line(error)}") from error


def read_mapping(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML file; a SanetError where it cannot be read, or holds something else."""
    try:
        found = parse(read_text(path))
    except yaml.YAMLError as error:
        raise SanetError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SanetError(f"{path} has no keys with values, such as `epochs: 30`")
    return found
