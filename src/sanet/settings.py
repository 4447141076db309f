"""What the settings of every command are made of: their kinds, their ranges, and how they are stored.

Nothing here imports torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sanet.references import name_of
from sanet.structures import UsageError, choose

# What settings choose by name, such as "adamw" or "my_lab.optim:Lion"; in Python the object itself will do.
Chosen = Annotated[Any, "name"]
Entry = Annotated[Any, "name or mapping"]
Options = dict[Any, Any]
# Seconds, also written as "90s", "20m" or "1.5h"; or None.
Duration = Annotated[float | None, "seconds, or a text such as 20m"]
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

# Sides of images in pixels, and processes, that no machine of today goes beyond.
SIDES, WORKERS = (32, 16_384), (0, 256)


def within(default: Any, low: float, high: float, **metadata: Any) -> Any:
    """A setting that is a number, or several, from ``low`` to ``high``, which no sane use goes beyond.

    A setting that is added to a section later has, here or in the metadata of its field, ``before=``: the value that
    means what was done before it existed. See ``with_newer_fields`` and ``key_of``.
    """
    return field(default=default, metadata={"range": (low, high), **metadata})


def check(settings: Any, section: str = "") -> None:
    """Make sure that settings have values of their kinds, of their choices, and numbers within their ranges.

    Lists become tuples, and whole numbers floats, where a setting is one.

    Args:
        settings: a dataclass.
        section: what stands before its names in messages, such as "model.".

    Raises:
        UsageError: one has not; the message names it.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for item in fields(settings):
        name, given = section + item.name, getattr(settings, item.name)
        try:
            value = _converted(given, hints[item.name], name)
        except TypeError as error:
            wanted = item.type.replace("Options", "mapping").replace("Entry", "name or mapping")
            raise UsageError(f"{name} {given!r}: give a value of the kind {wanted}, or leave it out") from error
        if "range" in item.metadata and value is not None:
            require(name, given if isinstance(value, tuple) else [given], *item.metadata["range"])
        object.__setattr__(settings, item.name, value)


def _converted(value: Any, kind: Any, name: str) -> Any:
    """A value as a setting of this kind holds it; else a TypeError, or a UsageError that says more."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # X | None
        return None if value is None else _converted(value, inner[0], name)
    if origin is Literal:
        return choose(name, value, inner)
    if kind == Duration:
        return None if value in (None, "null") else _seconds(value, name)
    if origin is Annotated:  # a name or an object, which is none of what YAML has beside texts
        if value is None or isinstance(value, (int, float, list, tuple)) or (type(value) is dict and kind == Chosen):
            raise TypeError
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) != len(value):
            raise TypeError
        return tuple(_converted(entry, one, name) for entry, one in zip(value, kinds, strict=True))
    if is_dataclass(kind) and isinstance(value, Mapping):
        return settings_of(kind, value, f"{name}.")
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, origin or kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{name} {value!r}: a text cannot hold the character of number 0")
    if origin is dict and is_dataclass(inner[1]):
        return {key: _converted(entry, inner[1], f"{name}.{key}") for key, entry in value.items()}
    return value


def _seconds(value: Any, name: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smh]?)", str(value), re.ASCII)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 1 <= seconds <= 1e8:
        raise UsageError(f"{name} {value!r}: a time of a second or more, such as 90s, 20m or 1.5h")
    return seconds


def settings_of(kind: Any, values: Mapping[str, Any], section: str = "") -> Any:
    """A dataclass of settings from nested mappings, as a YAML file has them.

    Args:
        kind: the dataclass.
        values: its settings by name, and those of its sections below theirs.
        section: what stands before the names in messages.

    Raises:
        UsageError: a setting that does not exist, or a value that it cannot have.
    """
    known = [section + item.name for item in fields(kind)]
    for name in values:
        choose("setting", f"{section}{name}", known)
    return kind(**values)


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


def changed(settings: Any, section: str = "") -> dict[str, Any]:
    """What differs from the defaults, by dotted names."""
    found: dict[str, Any] = {}
    before = type(settings)()
    for item in fields(settings):
        name, value = f"{section}{item.name}", getattr(settings, item.name)
        if is_dataclass(value):
            found |= changed(value, f"{name}.")
        elif value != getattr(before, item.name):
            found[name] = value
    return found


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted names as mappings within mappings."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return found


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
