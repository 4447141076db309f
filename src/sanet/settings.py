"""What the settings of every command are made of: their kinds, their ranges, and how they are stored.

Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sanet.references import name_of
from sanet.structures import UsageError, choose

MYPY = False  # mypy takes a variable of this name for true, as TYPE_CHECKING, whose block jsonargparse would read
# What settings choose by name, such as "adamw" or "my_lab.optim:Lion"; in Python the object itself will do. What
# jsonargparse sees must have no Any, nor a mapping of Any: there it imports and calls what a "class_path" names.
if MYPY:
    Chosen = Any
    Entry = Any
    Options = dict[Any, Any]
else:
    Chosen = str
    Entry = str | dict
    Options = dict[str, bool | int | float | list | dict | str | None]

# Sides of images in pixels, and processes, that no machine of today goes beyond.
SIDES, WORKERS = (32, 16_384), (0, 256)
# What a value has to be where a setting says so.
KINDS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "tuple": (tuple, list),
    "Options": dict,
}


def within(default: Any, low: float, high: float, **metadata: Any) -> Any:
    """A setting that is a number, or several, from ``low`` to ``high``, which no sane use goes beyond.

    A setting that is added to a section later has, here or in the metadata of its field, ``before=``: the value that
    means what was done before it existed. See ``with_newer_fields`` and ``key_of``.
    """
    return field(default=default, metadata={"range": (low, high), **metadata})


def check(settings: Any, section: str = "") -> None:
    """Make sure that settings have values of their kinds, of their choices, and numbers within their ranges.

    Args:
        settings: a dataclass.
        section: what stands before its names in messages, such as "model.".

    Raises:
        UsageError: one has not; the message names it.
    """
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        name, value = section + item.name, getattr(settings, item.name)
        if value is None and item.type.endswith("None"):
            continue
        word = item.type.split("[")[0].split(" ")[0]
        kind = item.default_factory if isinstance(item.default_factory, type) else KINDS.get(word, object)
        if value is None or not isinstance(value, kind) or (isinstance(value, bool) and item.type != "bool"):
            wanted = item.type.replace("Options", "mapping").replace("Entry", "name or mapping")
            raise UsageError(f"{name} {value!r}: give a value of the kind {wanted}, or leave it out")
        if isinstance(value, str) and "\0" in value:
            raise UsageError(f"{name} {value!r}: a text cannot hold the character of number 0")
        if get_origin(hints[item.name]) is Literal:
            choose(name, value, get_args(hints[item.name]))
        if "range" in item.metadata:
            require(name, value if isinstance(value, (tuple, list)) else [value], *item.metadata["range"])


def require(name: str, numbers: Iterable[Any], low: float, high: float) -> None:
    """Raise a UsageError for the first number that is none, or out of its range."""
    for number in numbers:
        if not isinstance(number, (int, float)) or not low <= number <= high:
            raise UsageError(f"{name} {number!r}: from {low} to {high}")


def checked_side(name: str, side: Any) -> int | None:
    """A shorter side of images in pixels, or None; anything else is a UsageError."""
    if side is not None:
        require(name, [side if type(side) is int else None], *SIDES)
    return side  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """Settings as YAML and JSON have them: mappings, lists, texts and numbers; objects from Python by their names."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {name_of(key) if not isinstance(key, (int, float)) else key: plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, (str, int, float)) else name_of(value)


def key_of(settings: Any) -> dict[str, Any]:
    """Settings as they identify what was done with them: without those that say what was done before they existed."""
    found = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if "before" not in item.metadata or value != item.metadata["before"]:
            found[item.name] = key_of(value) if is_dataclass(value) else plain(value)
    return found


def with_newer_fields(section: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, and those that did not exist when they were stored, as what was done then.

    Args:
        section: the dataclass.
        stored: values as ``plain`` gives them.
    """
    found = dict(stored)
    for item in fields(section):
        made: Any = item.default_factory
        if item.name not in stored and "before" in item.metadata:
            found[item.name] = plain(item.metadata["before"])
        elif is_dataclass(made) and isinstance(stored.get(item.name), dict):
            found[item.name] = with_newer_fields(made, stored[item.name])
    return found
