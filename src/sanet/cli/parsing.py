"""From the words of a command line, and the files that they name, to the dataclass of a command."""

from __future__ import annotations

import os
import re
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from shlex import quote
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, cast, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring

from sanet import yaml_files
from sanet.cli import renamed
from sanet.config import CONFIG, MODEL, OWN, TrainConfig
from sanet.settings import check, plain, with_newer_fields
from sanet.structures import SanetError, UsageError, say

# What no file may say, neither one of settings nor that of a run.
COMMAND_LINE_ONLY = {"import", "config", "resume", "trust_changes", "preview"}
# Of a dataclass whose settings are called without a prefix: --window, not --inference.window.
FLAT = {"flat": True}
# Of a field that is no setting: the names of those that the command line gave, None where a file gave some as well.
GIVEN = {"given": True}
EPILOG = "--import MODULE, with any command: open a module of your own, whose parts settings may then name."


def positional(metavar: str, nargs: str | None = None) -> Any:
    """A setting without a name; with ``nargs`` "+" or "*" it takes several words, with "?" one or none."""
    default = {"*": (), "?": None}.get(nargs or "", MISSING)
    return field(default=default, metadata={"how": {"metavar": metavar, "nargs": nargs}, "place": True})


def words(metavar: str | tuple[str, ...], default: Any = MISSING, **how: Any) -> Any:
    """A setting of several words, such as ``--models a b``."""
    return field(default=default, metadata={"how": {"metavar": metavar, "nargs": "+", **how}})


class Command:
    """What follows ``sanet``: a frozen dataclass of what it accepts; its call does it, and returns an exit status."""

    def __post_init__(self) -> None:
        check(self)

    def __call__(self) -> int | None:
        """Do it; nothing is status 0."""
        raise NotImplementedError


def model_in(directory: str) -> str:
    """A run directory keeps its model in model/; the bundled model has a name."""
    from sanet.models.store import BUNDLED, HUB, missing

    run = Path(directory)
    if directory in (OWN, "own") and not run.exists():
        if directory != OWN:
            raise UsageError(f"{directory}: the bundled model is called {OWN} now")
        return str(BUNDLED[OWN])
    if (run / MODEL).is_dir():
        return str(run / MODEL)
    if (run / CONFIG).exists():
        raise SanetError(f"{run} is a run that is not finished; resume it: sanet train --resume {quote(directory)}")
    # At once, before a dataset is read: only what is written as its own name is looked up on a hub.
    if not (directory.startswith(HUB) or os.path.exists(directory)):
        raise missing(run)
    return directory


def run_of(model: str) -> Path:
    """The run that a model is in, where it is named by the model folder of one; else its own place."""
    path = Path(model)
    return path.parent if path.name == MODEL and (path.parent / CONFIG).exists() else path


class Setting(NamedTuple):
    """One setting of a command: its field, its kind, its help, and the heading above it."""

    item: Field[Any]
    kind: Any
    text: str
    heading: str


@cache
def settings_in(kind: Any, prefix: str = "", heading: str = "options") -> Mapping[str, Setting]:
    """All settings of a command by the names that options have, such as "data.root"."""
    about = parse_docstring(kind.__doc__, DocstringStyle.GOOGLE)
    texts = {each.arg_name: each.description or "" for each in about.params}
    kinds = get_type_hints(kind, include_extras=True)
    found: dict[str, Setting] = {}
    for item in fields(kind):
        if item.metadata == GIVEN:
            continue
        section: Any = item.default_factory
        nested = is_dataclass(section)
        text = " ".join(texts[item.name].split())
        if item.metadata == FLAT:
            found |= settings_in(section, prefix, heading)
        elif nested:
            found |= settings_in(section, f"{prefix}{item.name}.", f"{item.name}: {text}")
        else:
            found[prefix + item.name] = Setting(item, kinds[item.name], text, heading)
    return found


class Parser(ArgumentParser):
    """Answers a mistake in one line, and ends with exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where help is."""
        say(f"{self.prog}: {message}\n`{self.prog} --help` lists the options", error=True)
        sys.exit(2)


def create_parser(name: str, command: Any) -> Parser:
    """The parser of a command, of words as texts; one that needs no positional arguments also accepts files.

    Args:
        name: its name.
        command: its dataclass: its docstring is the help, and its fields are the arguments.
    """
    known = settings_in(command)
    about = parse_docstring(command.__doc__, DocstringStyle.GOOGLE).short_description
    parser = Parser(f"sanet {name}", None, about, EPILOG, argument_default=SUPPRESS, allow_abbrev=False)
    if not any(item.metadata.get("place") and item.default is not None for item, *_ in known.values()):
        parser.add_argument("--config", action="append", help="YAML file with any of the options below")
    groups: dict[str, Any] = {"options": parser}
    usage = [parser.prog]
    for word, (item, kind, text, heading) in known.items():
        default: Any = item.default if item.default_factory is MISSING else item.default_factory()
        shown = "" if default in (MISSING, None, (), {}) else f" (default: {plain(default)})"
        values = f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else word.rpartition(".")[2].upper()
        how = {"metavar": values, "help": f"{text}{shown}".replace("%", "%%"), **item.metadata.get("how", {})}
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        option = word if item.metadata.get("place") else f"--{word}"
        if option != word:
            how["required"] = default is MISSING
        groups[heading].add_argument(option, **how)
        if default is MISSING:
            several = " ".join(how["metavar"]) if isinstance(how["metavar"], tuple) else how["metavar"]
            usage.append(several if option == word else f"{option} {several}")
    parser.usage = " ".join([*usage, "[options]"])
    return parser


def parse(name: str, command: Any, given: Sequence[str]) -> Any:
    """A command with its settings: those of its run, then of files, then of the command line, then the defaults.

    Args:
        name: what it is called.
        command: its dataclass.
        given: the words behind its name.

    Raises:
        SanetError: the configuration of a run cannot be read.
        UsageError: a setting is invalid.
    """
    known, parser = settings_in(command), create_parser(name, command)
    # All options have underscores; hyphens are read as well.
    given = [re.sub(r"^--[\w.-]+", lambda option: f"--{option[0][2:].replace('-', '_')}", word) for word in given]
    for option in {word.partition("=")[0] for word in given if re.match(r"--\w", word)}:
        parent = option[2:].rpartition(".")[0]
        if parent in known and get_origin(known[parent].kind) is dict:  # as --optimizer.options.momentum
            parser.add_argument(option)
        elif option[2:] not in {*known, "config", "help"}:
            parser.error(f"unrecognized arguments: {option}{_meant(option[2:], known)}")
    texts = vars(parser.parse_args(given))
    files = [Path(file) for file in texts.pop("config", [])]
    # A run that resumes brings its settings, and one that is used its dataset.
    run = texts.get("resume", texts.get("model") if "data.name" in known and "data.name" not in texts else None)
    if run is not None and (run_of(run) / CONFIG).exists():
        files.insert(0, run_of(run) / CONFIG)
    try:
        values: dict[str, Any] = {}
        for file in files:
            values |= _read(file, known, of_run=run is not None and file.parent == run_of(run))
        for option, text in sorted(texts.items(), key=lambda pair: pair[0] not in known):
            if option in known:
                values[option] = _value(option, text, known[option].kind)
            else:
                parent, _, key = option.rpartition(".")
                before = values.get(parent, cast(Any, known[parent].item.default_factory)())
                values[parent] = {**before, key: _value(option, text)} if isinstance(before, dict) else before
        return _built(command, values | ({} if files else {"given": (*values,)}))
    except UsageError as error:
        place = [f"; see {file}" for file in files[-1:] if str(file) not in str(error)]
        raise UsageError(f"{error}{''.join(place)}") from error


def _read(path: Path, known: Mapping[str, Setting], of_run: bool) -> dict[str, Any]:
    """The settings of a file by dotted names; of a run, which may be older, those that the command takes over."""
    found = yaml_files.read_mapping(path)
    for name in COMMAND_LINE_ONLY & found.keys():
        raise UsageError(f"{path}: {name} is read from the command line alone: --{name}")
    if of_run:
        if not isinstance(found.get("data"), dict):
            raise SanetError(f"{path} is no configuration of a run")
        found = with_newer_fields(TrainConfig, found)
    values = _dotted(found, known)
    if of_run:
        values = {renamed.OPTIONS.get(name, name): value for name, value in values.items()}
        data_only = "model" in known
        kept = [name for name in values if name == "window" or name.startswith("data.") or not data_only]
        return {name: values[name] for name in kept if name in known}
    for name in values:
        if name not in known:
            raise UsageError(f"{path}: unknown setting {name}{_meant(name, known)}")
    return values


def _dotted(found: Mapping[str, Any], known: Mapping[str, Setting]) -> dict[str, Any]:
    """Settings by dotted names, of sections and of those within them."""
    values: dict[str, Any] = {}
    for name, value in found.items():
        if not any(word.startswith(f"{name}.") for word in known):
            values[str(name)] = value
        elif isinstance(value, Mapping):
            values |= _dotted({f"{name}.{key}": entry for key, entry in value.items()}, known)
        else:  # as `model:` with nothing behind it
            raise UsageError(f"{name} {value!r}: write its settings below it, or leave it out")
    return values


def _meant(name: str, known: Mapping[str, Setting]) -> str:
    """What may be meant by a name that is not there: one that has changed, or the nearest."""
    if name in renamed.OPTIONS:
        return f"; it is called {renamed.OPTIONS[name]} now"
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _value(name: str, text: Any, kind: Any = dict) -> Any:
    """The value of a text, or of several: itself where the setting is one, else what it means as YAML."""
    if isinstance(text, list):  # of options that take several words
        return [_value(name, one, get_args(kind)[0]) for one in text]
    if get_origin(kind) is UnionType:
        return None if text == "null" else _value(name, text, get_args(kind)[0])
    if kind is str or get_origin(kind) in (Literal, Annotated):
        return text
    try:
        return yaml_files.parse(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} {text!r}: {error}") from error


def _built(kind: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    own = {}
    for item in fields(kind):
        name, section = prefix + item.name, cast(Any, item.default_factory)
        if is_dataclass(section):
            own[item.name] = _built(section, values, prefix if item.metadata == FLAT else f"{name}.")
        elif name in values:
            own[item.name] = values[name]
    return kind(**own)
