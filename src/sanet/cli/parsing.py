"""A parser that answers a mistake in one line, and help that is short."""

from __future__ import annotations

import re
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader

from sanet import yaml_files
from sanet.structures import UsageError, say

set_loader("yaml", yaml_files.parse, (yaml.YAMLError,))


class HelpFormatter(RawDescriptionHelpFormatter, ArgumentDefaultsHelpFormatter):
    """Shows defaults, and one word for a value in place of its dotted name."""

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return action.dest.rpartition(".")[2].upper()

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Points(Action):
    """Collects ``--point X Y``, which may be given again and again, as pairs of whole numbers."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add one."""
        try:
            point = tuple(int(value) for value in values)
        except ValueError as error:
            raise ArgumentError(self, f"two whole numbers, not {' '.join(values)}") from error
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), point])


class Parser(ArgumentParser):
    """Answers a mistake in one line, with the nearest right word where one was misspelt.

    Attributes:
        words: all that it takes, dotted.
        reading: the file that is being read, if one is.
        source: the last one that was.
    """

    words: Sequence[str] = ()
    reading: str = ""
    source: str = ""

    def parse_path(self, path: Any, *arguments: Any, **options: Any) -> Namespace:
        """The settings of a file."""
        if self.reading:
            raise UsageError(f"{self.reading}: a file of settings cannot name another, {path}")
        self.reading = self.source = str(path)
        found: Namespace = self.parse_string(yaml_files.read_text(Path(path)), **options)
        self.reading = ""
        return found

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Leave with exit status 2."""
        word = re.search(r"(?:unrecognized arguments: |not accept option '|invalid choice: ')-*([\w.-]+)", message)
        near = get_close_matches(word[1], self.words, n=1) if word else []
        hint = f"; did you mean {near[0]}?" if near else ""
        # What a command lacks is found by the parser above it, which puts the command's name before each.
        command = re.search(r"are required: ([\w-]+)\.", message)
        prog = f"{self.prog} {command[1]}" if command else self.prog
        text = message.replace(f"{command[1]}.", "") if command else message
        where = f"{self.reading}: " if self.reading else ""
        say(f"{prog}: {where}{' '.join(text.split())}{hint}", error=True)
        say(f"`{prog} --help` lists what there is", error=True)
        sys.exit(2)
