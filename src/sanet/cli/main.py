"""The command line: chooses the command, parses, runs it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper
from itertools import pairwise
from typing import Any

from sanet import references
from sanet.cli import renamed, training, using
from sanet.cli.parsing import Command, create_parser, parse, require_settings, run_of
from sanet.config import CONFIG, TrainConfig
from sanet.settings import with_newer_fields
from sanet.structures import Interrupted, SanetError, UsageError, choose, say
from sanet.yaml_files import read_mapping

HELP = """usage: sanet COMMAND [options]

Semantic segmentation with Squeeze-and-Attention Networks.

Examples, with your own images in photos/images and their masks in photos/masks:
  sanet check-data --data.name folder --data.root photos --data.classes "[background, leaf]"
  sanet train --data.name folder --data.root photos --data.classes "[background, leaf]" --output runs/leaf
  sanet evaluate runs/leaf --split val
  sanet predict holiday/*.jpg --model runs/leaf --output labelled

Commands:
{}

  sanet COMMAND --help   lists the options of a command
  sanet --version        prints the version
  --import MODULE        with any command: opens a module of your own, whose parts settings may then name"""


COMMANDS: dict[str, type[Command]] = {
    "download": training.Download,
    "check-data": training.CheckData,
    "train": training.Train,
    "repeat": training.Repeat,
    "evaluate": training.Evaluate,
    "compare": training.Compare,
    "predict": using.Predict,
    "explain": using.Explain,
    "grouping": using.Grouping,
    "visualize": using.Visualize,
    "demo": using.Demo,
    "export": using.Export,
    "profile": using.Profile,
}


def command_of(given: Sequence[str]) -> Any:
    """A command with its settings, from its name and the words behind it.

    The defaults come first, then the configuration of the run that is resumed or evaluated, a file, the command line.

    Raises:
        SanetError: a file cannot be read.
        UsageError: a setting is invalid.
    """
    name, command = given[0], COMMANDS[given[0]]
    if name == "repeat" and given[1:] and not given[1].startswith("--"):  # TABLE.yaml
        given = [name, "--config", *given[1:]]
    stored, file = _stored(name, given)
    return parse(create_parser(name, command), command, given[1:], stored, file)


def _stored(command: str, given: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The settings of the run that is resumed, or the dataset of the one that is evaluated, by dotted names."""
    if command == "train":
        runs = [word for before, word in pairwise(given) if before == "--resume"][-1:]
    elif command in ("evaluate", "grouping", "export") and not any(word.startswith("--data.name") for word in given):
        # The first word that is neither an option nor the value of one.
        places = [pair for pair in pairwise(given) if not pair[1].startswith("--")]
        runs = [word for before, word in places if "=" in before or not before.startswith("--")]
    else:
        runs = []
    path = run_of(runs[0]) / CONFIG if runs else None
    if path is None or not path.exists():
        return {}, ""
    found = read_mapping(path)
    require_settings(found, path)
    if not isinstance(found.get("data"), dict):
        raise SanetError(f"{path} is no configuration of a run")
    found = with_newer_fields(TrainConfig, found)
    if command != "train":
        found = {section: found[section] for section in ("data", "window") if section in found}
    sections = {section: value for section, value in found.items() if isinstance(value, dict)}
    dotted = found | {f"{name}.{key}": entry for name, section in sections.items() for key, entry in section.items()}
    if command != "train":  # an older run is not resumed, but its model is evaluated
        dotted = {renamed.OPTIONS.get(word, word): value for word, value in dotted.items()}
    return dotted, str(path)


def split_words(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules to open; and the command, then a file and a run with settings, then what overrides them."""
    parser = ArgumentParser("sanet", "sanet COMMAND [options]", add_help=False, allow_abbrev=False)
    for option in ("import", "config", "resume"):
        parser.add_argument(f"--{option}", action="append", default=[])
    found, rest = parser.parse_known_args(given)
    first = [
        word for option in ("config", "resume") for value in vars(found)[option] for word in (f"--{option}", value)
    ]
    return vars(found)["import"], [*rest[:1], *first, *rest[1:]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a wrong command line, 75 for a run that SIGTERM stopped and that can
        resume, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # file names may be no text, as those of old archives
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        modules, given = split_words(sys.argv[1:] if arguments is None else arguments)
        if not given or given[0] in ("--help", "-h"):
            lines = (f"  {name:12}{str(each.__doc__).splitlines()[0]}" for name, each in COMMANDS.items())
            say(HELP.format("\n".join(lines)), error=not given)
            return 0 if given else 2
        if given[0] == "--version":
            say(f"sanet {version('sanet-segmentation')}")
            return 0
        if given[0] in renamed.COMMANDS:
            raise UsageError(f"sanet {given[0]} is now {renamed.COMMANDS[given[0]]}")
        choose("command", given[0], [*COMMANDS])
        command = command_of(given)
        references.use(*modules)
        return command() or 0
    except Interrupted as stop:
        say(f"sanet: {stop}", error=True)
        return stop.status
    except SanetError as error:
        say(f"sanet: {error}", error=True)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
