"""The command line: parses and dispatches, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace

from sanet.cli import commands, options
from sanet.cli.parsing import HelpFormatter, Parser
from sanet.config import CONFIG, plain, require
from sanet.structures import Interrupted, SanetError, UsageError, first_line, say
from sanet.yaml_files import read_mapping

DESCRIPTION = """Semantic segmentation with Squeeze-and-Attention Networks.

Examples, with your own pictures in photos/images and their masks in photos/masks:
  sanet check-data --data.name folder --data.root photos --data.classes "[background, leaf]"
  sanet train --data.name folder --data.root photos --data.classes "[background, leaf]" --output runs/leaf
  sanet evaluate runs/leaf --split val
  sanet predict holiday/*.jpg --model runs/leaf --output labelled"""


class Command(NamedTuple):
    """One word after ``sanet``: what it takes, what it does, and how ``--help`` puts it."""

    add_options: Callable[[Parser], None]
    run: Callable[[Namespace], int]
    summary: str
    usage: str


COMMANDS = {
    "download": Command(
        options.download_options, commands.download_command, "download a public dataset", "NAME --root DIR [options]"
    ),
    "check-data": Command(
        options.check_data_options,
        commands.check_data_command,
        "list everything that is wrong with a dataset",
        "[options]",
    ),
    "recipes": Command(options.recipes_options, commands.recipes_command, "list the published runs", ""),
    "train": Command(options.train_options, commands.train_command, "train a network", "[options]"),
    "experiment": Command(
        options.experiment_options,
        commands.experiment_command,
        "run a table of the paper: all rows, several seeds",
        "NAME [options]",
    ),
    "evaluate": Command(
        options.evaluate_options, commands.evaluate_command, "score a model on a split of a data set", "MODEL [options]"
    ),
    "scores": Command(
        options.scores_options, commands.scores_command, "show results side by side", "SCORES [SCORES ...]"
    ),
    "submit": Command(
        options.submit_options,
        commands.submit_command,
        "label the test pictures of PASCAL VOC for its server",
        "MODEL [options]",
    ),
    "predict": Command(
        options.predict_options,
        commands.predict_command,
        "label the pixels of pictures",
        "PICTURE [PICTURE ...] [--model MODEL] [options]",
    ),
    "explain": Command(
        options.explain_options,
        commands.explain_command,
        "show which pixels a SANet groups with a point",
        "MODEL IMAGE --point X Y [--point X Y …] [options]",
    ),
    "grouping": Command(
        options.grouping_options,
        commands.grouping_command,
        "score how well the heads of a SANet group the pixels of a class",
        "MODEL [options]",
    ),
    "visualize": Command(
        options.visualize_options,
        commands.visualize_command,
        "draw images under several networks, with their errors",
        "IMAGE [IMAGE ...] --models MODEL [MODEL ...] [options]",
    ),
    "demo": Command(
        options.demo_options,
        commands.demo_command,
        "open a page to play with: masks, and the pixel groups of a click",
        "[MODEL ...] [options]",
    ),
    "export": Command(
        options.export_options,
        commands.export_command,
        "write a network as a file that runs without this package",
        "MODEL [options]",
    ),
    "profile": Command(
        options.profile_options,
        commands.profile_command,
        "measure what networks cost: parameters, MACs, memory, time",
        "[options]",
    ),
}


def create_parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and those of its commands by name."""
    parser = Parser(prog="sanet", description=DESCRIPTION, formatter_class=HelpFormatter, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('sanet-segmentation')}")
    group = parser.add_subcommands(required=True, metavar="COMMAND")
    parsers: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        summary = f"{command.summary[0].upper()}{command.summary[1:]}."
        parsers[name] = Parser(description=summary, usage=f"sanet {name} {command.usage}".rstrip())
        command.add_options(parsers[name])
        group.add_subcommand(name, parsers[name], help=command.summary)
        parsers[name].prog = f"sanet {name}"
        parsers[name].words = list(parsers[name].get_defaults().keys())
    # A wrong key in a YAML file is reported here, not by the parser of the command.
    parser.words = [*COMMANDS, *(word for each in parsers.values() for word in each.words)]
    return parser, parsers


def _defaults(stored: dict[str, Any], command: str) -> dict[str, Any]:
    """The configuration of a run under dotted names, as far as the command has them."""
    if command != "train":
        stored = {"data": stored["data"], **({"window": stored["window"]} if "window" in stored else {})}
    defaults: dict[str, Any] = {}
    for name, value in stored.items():
        defaults |= (
            {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
        )
    return defaults


def _stored(path: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        SanetError: it cannot be read, or is damaged.
    """
    stored = read_mapping(path)
    if not isinstance(stored.get("data"), dict):
        raise SanetError(f"{path} is no configuration of a run; name another run, or write it anew")
    return stored


def _known(chosen: Namespace, parser: Parser, command: str, other_data: bool) -> dict[str, Any]:
    """What the run that is meant, or the recipe, was made with."""
    run = chosen.get("resume") or chosen.get("trained")
    if run and (Path(run) / CONFIG).exists() and not other_data:
        parser.reading = parser.source = str(Path(run) / CONFIG)  # a mistake from here on is one of its values
        return _defaults(_stored(Path(run) / CONFIG), command)
    if chosen.get("recipe"):
        from sanet.experiments.recipes import recipe

        return _defaults(plain(asdict(recipe(chosen["recipe"]).config)), command)
    return {}


def _require_values(parsed: Namespace, parser: Parser) -> None:
    """Raise a UsageError where a setting is empty that has to have a value, or a number is out of its range.

    What is null, as ``model:`` in YAML with nothing behind it, passes the parser.
    """
    for name, default in parser.get_defaults().items():
        section, _, _ = name.rpartition(".")
        if section and not isinstance(parsed.get(section), Namespace):
            raise UsageError(f"{section} {parsed.get(section)!r}: write its settings below it, or leave it out")
        value = parsed.get(name)
        if value is None and default is not None:
            raise UsageError(f"{name} is empty: give it a value, or leave it out; by default {default}")
        if value is not None and name in options.RANGES:
            require(name, [value], *options.RANGES[name])


def _settings(given: list[str]) -> tuple[str, Namespace]:
    """The command that is given, and its settings: the defaults, what a run or a recipe has, a file, the command line.

    Raises:
        SanetError: a file that cannot be read.
        UsageError: a setting that cannot be.
    """
    parser, parsers = create_parsers()
    try:
        parsed = parser.parse_args(given)
        command = parsed.subcommand
        other_data = command != "train" and any(word.startswith("--data.name") for word in given)
        defaults = _known(parsed[command], parser, command, other_data)
        # Of them a command takes what it has.
        defaults = {name: value for name, value in defaults.items() if name in parsers[command].words}
        if defaults:
            # They become the defaults; what is given on the command line still wins.
            parsers[command].set_defaults(defaults)
            parsed = parser.parse_args(given)
        _require_values(parsed[command], parsers[command])
        return command, parser.instantiate(parsed)[command]
    except UsageError as error:
        sources = [each.source for each in (parser, *parsers.values()) if each.source]
        raise UsageError("; see ".join([str(error), *sources])) from error
    except (UnicodeError, OSError) as error:
        raise UsageError(f"a file of settings cannot be read: {first_line(error)}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a wrong command line, 75 for a run that SIGTERM stopped and that can
        go on, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, TextIOWrapper):  # file names may be no text, as those of old archives
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command, settings = _settings(given)
        return COMMANDS[command].run(settings)
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
