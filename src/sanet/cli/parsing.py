"""From the words of a command line to the dataclass of a command, in one parse; a mistake is answered in one line."""

from __future__ import annotations

import os
import re
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from sanet import yaml_files
from sanet.cli.renamed import renamed
from sanet.config import CONFIG, MODEL, OWN
from sanet.settings import check
from sanet.structures import SanetError, UsageError, first_line, say

set_loader("yaml", yaml_files.parse, (yaml.YAMLError,))
# jsonargparse imports what a value names as a class_path; here nothing but the dataclass that it names so itself.
set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["sanet.deploy.config.Published"])

COMMAND_LINE_ONLY = {"import", "config", "resume", "trust_changes"}
# Of a dataclass whose settings are called without a prefix: --window, not --inference.window.
FLAT = {"flat": True}
EPILOG = "--import MODULE, with any command: open a module of your own, whose parts settings may then name."


def positional(metavar: str, nargs: str | None = None) -> Any:
    """A setting without a name; with ``nargs`` "+" or "*" it takes several words."""
    how = {"metavar": metavar, "nargs": nargs, **({"default": ()} if nargs == "*" else {})}
    return field(default=how.get("default", MISSING), metadata={"how": how, "positional": True})


def words(metavar: str | tuple[str, ...], default: Any = MISSING, **how: Any) -> Any:
    """A setting of several words, such as ``--models a b``."""
    given = {"required": True} if default is MISSING else {"default": default}
    return field(default=default, metadata={"how": {"metavar": metavar, "nargs": "+", **given, **how}})


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


class HelpFormatter(RawDescriptionHelpFormatter, ArgumentDefaultsHelpFormatter):
    """Shows defaults, and one word for a value in place of its dotted name."""

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return action.dest.rpartition(".")[2].upper()

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default in (None, ()) else super()._get_help_string(action)


class Parser(ArgumentParser):
    """Answers a mistake in one line, with the nearest right word, or the new one of an old.

    Attributes:
        file: the last one that settings came from.
        reading: whether it is being read.
    """

    file: str = ""
    reading: bool = False

    def parse_path(self, path: Any, *arguments: Any, **options: Any) -> Namespace:
        """The settings of a file."""
        if self.reading:
            raise UsageError("config: a file of settings cannot name another")
        self.file, self.reading = str(path), True
        settings: Namespace = self.parse_string(yaml_files.read_text(Path(path)), **options)
        require_settings(settings.keys(), path)
        self.reading = False
        return settings

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Leave with exit status 2."""
        found = re.search(r"unrecognized arguments: --([\w.-]+)|(?:Group '([\w.]+)'.*?)?ption '([\w.]+)'", message)
        hint = ""
        if found:
            word = ".".join(filter(None, found.groups()))
            near = get_close_matches(word, self.get_defaults().keys(), n=1)
            hint = renamed(word) or (f"; did you mean {near[0]}?" if near else "")
        text = " ".join(message.split()).partition(" Add the import path to import_path_allowlist")[0]
        say(f"{self.prog}: {self.located(text + hint)}\n`{self.prog} --help` lists the options", error=True)
        sys.exit(2)

    def located(self, message: str) -> str:
        """A message with the file that it may be about."""
        aside = not self.file or self.file in message or message.startswith("unrecognized arguments")
        return message if aside else f"{message}; see {self.file}"


def require_settings(names: Iterable[str], file: Any) -> None:
    """Raise a UsageError where a file holds what belongs to the command line alone."""
    for name in COMMAND_LINE_ONLY & set(names):
        raise UsageError(f"{file}: {name} is read from the command line alone: --{name}")


def create_parser(name: str, command: Any) -> Parser:
    """The parser of a command; one without positional arguments also reads files.

    Args:
        name: its name.
        command: its dataclass: its docstring is the help, and its fields are the arguments.
    """
    documented = parse_docstring(command.__doc__ or "")
    texts = {each.arg_name: each.description for each in documented.params}
    usage, special = [f"sanet {name}"], set()
    parser = Parser(f"sanet {name}", description=documented.short_description, epilog=EPILOG, allow_abbrev=False)
    parser.formatter_class = HelpFormatter
    if not any("positional" in item.metadata for item in fields(command)):
        parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    for item in fields(command):
        how = dict(item.metadata.get("how", {}))
        flag = item.name if "positional" in item.metadata else f"--{item.name}"
        if item.default is item.default_factory:  # both are missing
            metavar = how.get("metavar", item.name.upper())
            value = " ".join(metavar) if isinstance(metavar, tuple) else metavar
            usage.append(f"{flag} {value}" if flag != item.name else f"{value} ..." if how["nargs"] else value)
        if how:
            hint = get_type_hints(command)[item.name]
            kind = {} if isinstance(how["nargs"], int) else {"type": get_args(hint)[0] if how["nargs"] else hint}
            parser.add_argument(flag, help=texts[item.name], **kind, **how)
        elif item.metadata == FLAT:
            parser.add_class_arguments(item.default_factory, None)
        else:
            continue
        special.add(item.name)
    parser.add_class_arguments(command, None, as_group=False, skip=special)
    parser.usage = " ".join([*usage, "[options]"])
    return parser


def parse(parser: Parser, command: Any, given: Sequence[str], stored: Mapping[str, Any], file: str) -> Any:
    """A command with its settings.

    Args:
        parser: that of the command.
        command: its dataclass.
        given: the words behind its name.
        stored: what takes the place of the dataclass's defaults, by dotted names.
        file: where it comes from.

    Raises:
        UsageError: a setting is invalid.
    """
    names = list(map(str, parser.get_defaults().keys()))
    parser.set_defaults({name: value for name, value in stored.items() if name in names})
    parser.file = file
    try:
        settings = parser.parse_args([_spelled(word, names) for word in given])
        for section in {name.partition(".")[0] for name in names if "." in name}:
            if not isinstance(settings[section], Namespace):  # as `model:` of a file, with nothing behind it
                raise UsageError(f"{section} {settings[section]!r}: write its settings below it, or leave it out")
        return _filled(command, parser.instantiate(settings))
    except UsageError as error:
        raise UsageError(parser.located(str(error))) from error
    except (UnicodeError, OSError) as error:
        raise UsageError(f"a file of settings cannot be read: {first_line(error)}") from error


def _spelled(word: str, names: Sequence[str]) -> str:
    """An option with underscores, as all are called here; hyphens are read as well."""
    option, equals, value = word.partition("=")
    name = option[2:].replace("-", "_")
    return f"--{name}{equals}{value}" if option.startswith("--") and name in names else word


def _filled(kind: Any, settings: Namespace) -> Any:
    return kind(
        **{
            item.name: _filled(item.default_factory, settings) if item.metadata == FLAT else settings[item.name]
            for item in fields(kind)
        }
    )
