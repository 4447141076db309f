"""What a setting may name: a built-in, a class of a well-known package, or anything of a module that the user opened.

A reference is a name, ``adamw`` or ``my_lab.losses:Boundary``, with options where it has some. Nothing that a file says
causes an import: of packages only the classes that a kind allows are found, and modules are opened on the command line
(``--import my_lab``) or in Python (``sanet.use("my_lab")``).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from inspect import signature
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from sanet.structures import UsageError, first_line, nearest

FUNCTIONS = (FunctionType, BuiltinFunctionType)
_opened: dict[str, ModuleType] = {}


def use(*modules: str) -> None:
    """Open modules of one's own: from now on settings may name what they define. Their code runs.

    The working directory is searched last, after everything that is installed.

    Args:
        modules: such as "my_lab", which opens "my_lab.losses" as well.

    Raises:
        UsageError: one cannot be imported.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    for name in modules:
        try:
            _opened[name] = importlib.import_module(name)
        except Exception as error:  # whatever its code raises
            raise UsageError(
                f"--import {name}: {type(error).__name__}: {first_line(error)}; modules are found where Python has "
                "its own, and in the working directory"
            ) from error


def opened() -> list[str]:
    """The modules that were opened, for a process that has to open them too."""
    return list(_opened)


@dataclass(frozen=True)
class Reference:
    """A name and what it is called with.

    Args:
        name: a built-in name, "module:Name", or the object itself.
        options: keyword arguments.
    """

    name: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, value: Any) -> Reference:
        """From a setting: a name, ``{name: …, options: {…}}``, or an object from Python.

        Raises:
            UsageError: a mapping with other keys.
        """
        if not isinstance(value, Mapping):
            return cls(value)
        if "name" not in value or set(value) - {"name", "options"}:
            raise UsageError(f"{kind} {dict(value)!r}: give a name, or {{name: …, options: {{…}}}}")
        return cls(value["name"], value.get("options") or {})


@dataclass(frozen=True)
class Kind:
    """A kind of thing that settings choose, such as an optimiser.

    Args:
        word: what it is called in messages: the setting's name.
        builtin: what is built in, by name.
        packages: packages whose classes may be named without being opened, each with the base class they must have.
    """

    word: str
    builtin: Mapping[str, Any]
    packages: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: Any) -> Any:
        """The object of a name; what is no text is the object.

        Raises:
            UsageError: there is none of that name, or it is in a module that nobody opened.
        """
        if not isinstance(name, str):
            return name
        if name in self.builtin:
            return self.builtin[name]
        module, colon, attribute = name.partition(":")
        if not colon:
            also = [f'"{package}:Name"' for package in self.packages] + ['"my_module:Name" with --import my_module']
            choices = f"{', '.join(sorted(self.builtin))}; or {' or '.join(also)}"
            raise UsageError(f"unknown {self.word} {name!r}; {nearest(name, self.builtin)}Choices: {choices}")
        top = module.partition(".")[0]
        if is_open(module):
            found = _attribute(self.word, module, attribute)
            if not callable(found) or str(getattr(found, "__module__", "")).partition(".")[0] != top:
                raise UsageError(f"{self.word} {name!r}: {attribute} is no class or function that {top} defines")
            return found
        for package, base in self.packages.items():
            if module == package or module.startswith(f"{package}."):
                return self._member(package, base, name, module, attribute)
        if top == "__main__":
            raise UsageError(f"{self.word} {name!r}: it was defined in a script; put it into a module, and open that")
        raise UsageError(
            f"{self.word} {name!r}: the module {module!r} is not open, and no file can open it; if you trust its code, "
            f"add --import {top}, or sanet.use({top!r}) in Python"
        )

    def build(self, value: Any, *arguments: Any, **more: Any) -> Any:
        """What a reference stands for, ready for use.

        A class is called with ``arguments``, its options and ``more``, and so is a function where there are
        arguments; else the options of a function are bound. An object from Python is taken as it is.

        Raises:
            UsageError: see ``find``; or it cannot be called with these options.
        """
        reference = Reference.of(self.word, value)
        found = self.find(reference.name)
        called = isinstance(found, type) or (bool(arguments) and isinstance(found, (*FUNCTIONS, partial)))
        try:
            if called:
                return found(*arguments, **{**reference.options, **more})
            if not reference.options:
                return found
            signature(found).bind_partial(**reference.options)
            return partial(found, **reference.options)
        except UsageError:
            raise
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.word} {name_of(reference.name)!r}: {first_line(error)}") from error

    def _member(self, package: str, base: str, name: str, module: str, attribute: str) -> Any:
        holder, _, base_name = base.partition(":")
        wanted = getattr(importlib.import_module(holder), base_name)
        found = _attribute(self.word, module, attribute)
        top = package.partition(".")[0]
        if not (isinstance(found, type) and issubclass(found, wanted) and found.__module__.partition(".")[0] == top):
            raise UsageError(f"{self.word} {name!r}: only a {base_name} of {package} can be named here")
        return found


def name_of(value: Any) -> str:
    """How a record names what a setting chose: the name, or "module:Name" of an object's class.

    What is defined in ``__main__`` can be used, but not found again.
    """
    if isinstance(value, str):
        return value
    made = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{made.__module__}:{made.__qualname__}"


def digests(modules: Collection[str] | None = None) -> dict[str, str]:
    """By opened top-level package: its version where it is installed, else a hash of its Python files.

    Args:
        modules: top-level names, such as "my_lab"; only these count. None: all that were opened.
    """
    tops = dict.fromkeys(name.partition(".")[0] for name in _opened)
    wanted = [top for top in tops if modules is None or top in modules]
    from importlib.metadata import version  # a fifth of the time that --help takes

    distributions = _distributions() if wanted else {}
    return {top: version(distributions[top][0]) if top in distributions else _hash(sys.modules[top]) for top in wanted}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """What is installed, by top-level package: half a second of reading, where much is."""
    from importlib.metadata import packages_distributions

    return packages_distributions()


def _hash(module: ModuleType) -> str:
    folders = [Path(place) for place in getattr(module, "__path__", [])]
    files = [path for folder in folders for path in folder.rglob("*.py")] or [Path(str(module.__file__))]
    digest = sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


def is_open(module: str) -> bool:
    """Whether a module, or a package that it is in, was opened."""
    return any(module == name or module.startswith(f"{name}.") for name in _opened)


def _attribute(word: str, module: str, attribute: str) -> Any:
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{word} {module}:{attribute}: {first_line(error)}") from error
    if not attribute.isidentifier() or attribute.startswith("_") or not hasattr(loaded, attribute):
        public = [name for name in dir(loaded) if not name.startswith("_")]
        raise UsageError(f"{word}: there is no {attribute!r} in {module}; {nearest(attribute, public)}".rstrip("; "))
    return getattr(loaded, attribute)
