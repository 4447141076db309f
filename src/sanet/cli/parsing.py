"""A parser that answers a mistake in one line, and help that is short."""

from __future__ import annotations

import re
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from jsonargparse import ArgumentParser


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
    """Answers a mistake in one line, with the nearest right word where one was misspelt."""

    words: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Leave with exit status 2."""
        word = re.search(r"(?:unrecognized arguments: |not accept option '|invalid choice: ')-*([\w.-]+)", message)
        near = get_close_matches(word[1], self.words, n=1) if word else []
        hint = f"; did you mean {near[0]}?" if near else ""
        # What a command lacks is found by the parser above it, which puts the command's name before each.
        command = re.search(r"are required: ([\w-]+)\.", message)
        prog = f"{self.prog} {command[1]}" if command else self.prog
        text = message.replace(f"{command[1]}.", "") if command else message
        print(f"{prog}: {' '.join(text.split())}{hint}", file=sys.stderr)
        print(f"`{prog} --help` lists what there is", file=sys.stderr)
        sys.exit(2)
