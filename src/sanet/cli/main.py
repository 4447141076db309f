"""The command line: chooses the command, parses, runs it."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from io import TextIOWrapper

from sanet import references
from sanet.cli import labelling, renamed, serving, training, using
from sanet.cli.parsing import Command, parse
from sanet.structures import Interrupted, SanetError, UsageError, choose, say

HELP = """usage: sanet COMMAND [options]

Semantic segmentation with Squeeze-and-Attention Networks.

Examples, with your own images in photos/images and their masks in photos/masks:
  sanet check-data photos
  sanet train --data.root photos --output runs/leaf
  sanet evaluate runs/leaf --split val
  sanet predict holiday/*.jpg --model runs/leaf --output labelled

Commands:
{}

  sanet COMMAND --help   lists the options of a command
  sanet --version        prints the version
  --import MODULE        with any command: opens a module of your own, whose parts settings may then name"""


COMMANDS: dict[str, type[Command]] = {
    "download": training.Download,
    "convert": training.Convert,
    "check-data": training.CheckData,
    "plan": training.Plan,
    "train": training.Train,
    "repeat": training.Repeat,
    "evaluate": training.Evaluate,
    "errors": using.Errors,
    "next": labelling.Next,
    "score": training.Score,
    "compare": training.Compare,
    "predict": using.Predict,
    "explain": using.Explain,
    "grouping": using.Grouping,
    "visualize": using.Visualize,
    "demo": serving.Demo,
    "serve": serving.Serve,
    "export": using.Export,
    "profile": using.Profile,
}


def command_of(given: Sequence[str]) -> Command:
    """A command with its settings, from its name and the words behind it; see ``parse``."""
    name, *words = given
    choose("command", name, [*COMMANDS])
    if name == "repeat" and words and not words[0].startswith("--"):  # TABLE.yaml
        words = ["--config", *words]
    command: Command = parse(name, COMMANDS[name], words)
    return command


def split_words(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules to open, which may be named anywhere; and the command with what follows it."""
    parser = ArgumentParser("sanet", "sanet COMMAND [options]", add_help=False, allow_abbrev=False)
    parser.add_argument("--import", action="append", default=[])
    found, words = parser.parse_known_args(given)
    return vars(found)["import"], words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a failure, 2 for a wrong command line, 75 for a run that SIGTERM stopped and that can
        resume, 130 after Ctrl-C.
    """
    # Before torch loads OpenMP: threads that wait leave the processor to others, which spinning would fight with.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # what Apple's GPUs lack, the processor computes
    if isinstance(sys.stdout, TextIOWrapper):  # file names may be no text, as those of old archives
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        modules, given = split_words(sys.argv[1:] if arguments is None else arguments)
        if not given or given[0] in ("--help", "-h"):
            lines = (f"  {name:12}{str(each.__doc__).splitlines()[0]}" for name, each in COMMANDS.items())
            say(HELP.format("\n".join(lines)), error=not given)
            return 0 if given else 2
        if given[0] == "--version":
            from importlib.metadata import version  # takes a quarter of the time of --help

            say(f"sanet {version('sanet-segmentation')}")
            return 0
        if given[0] in renamed.COMMANDS:
            raise UsageError(f"sanet {given[0]} is now {renamed.COMMANDS[given[0]]}")
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
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has; and Python must not write on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
