"""The command line: parses and dispatches, nothing else.

Torch is imported by the commands, not here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from sanet.config import CONFIG, MODEL, DataConfig, ExportFormat, ProfileConfig, TrainConfig
from sanet.structures import SanetError, UsageError

DESCRIPTION = """Semantic segmentation with Squeeze-and-Attention Networks.

Examples, with your own pictures in photos/images and their masks in photos/masks:
  sanet check-data --data.name folder --data.root photos --data.classes "[background, leaf]"
  sanet train --data.name folder --data.root photos --data.classes "[background, leaf]" --output runs/leaf
  sanet evaluate runs/leaf --split val
  sanet predict holiday/*.jpg --model runs/leaf --output labelled"""


class HelpFormatter(RawDescriptionHelpFormatter, ArgumentDefaultsHelpFormatter):
    """Shows defaults, and one word for a value in place of its dotted name."""

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return action.dest.rpartition(".")[2].upper()

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(ArgumentParser):
    """Answers a mistake in one line, with the nearest right word where one was misspelt."""

    words: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Leave with exit status 2."""
        word = re.search(r"(?:unrecognized arguments: |not accept option '|invalid choice: ')-*([\w.-]+)", message)
        near = get_close_matches(word[1], self.words, n=1) if word else []
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"{self.prog}: {' '.join(message.split())}{hint}", file=sys.stderr)
        print(f"`{self.prog} --help` lists what there is", file=sys.stderr)
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failure, 2 for a wrong command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _create_parsers()
    try:
        parsed = parser.parse_args(given)
        chosen = parsed[parsed.subcommand]
        run = chosen.get("resume") or chosen.get("trained")
        other_data = parsed.subcommand != "train" and any(word.startswith("--data.name") for word in given)
        if run and (Path(run) / CONFIG).exists() and not other_data:
            # What the run was made with becomes the default; what is given on the command line still wins.
            commands[parsed.subcommand].set_defaults(_defaults_from(Path(run), parsed.subcommand))
            parsed = parser.parse_args(given)
        settings = parser.instantiate(parsed)[parsed.subcommand]
        return COMMANDS[parsed.subcommand].run(settings)
    except SanetError as error:
        print(f"sanet: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def train_command(settings: Namespace) -> int:
    """Train, and say where everything is."""
    from sanet.evaluation.report import score_table
    from sanet.training.fit import train

    values = {item.name: settings[item.name] for item in fields(TrainConfig)}
    if settings.resume:
        values["output"] = settings.resume
    run = train(TrainConfig(**values), resume=settings.resume is not None)
    print(score_table(run.evaluation))
    print(f"model:  {run.directory / MODEL}\nreport: {run.directory / 'report.html'}")
    return 0


def evaluate_command(settings: Namespace) -> int:
    """Score a model, and print the table."""
    from sanet.evaluation.evaluate import evaluate
    from sanet.evaluation.report import score_table
    from sanet.training.metrics import read_metrics

    run = Path(settings.trained)
    output = Path(settings.output or (run / settings.split if (run / MODEL).is_dir() else f"scores-{settings.split}"))
    evaluation = evaluate(
        _model_in(settings.trained),
        settings.data,
        settings.split,
        output,
        settings.window,
        settings.device,
        read_metrics(run),
    )
    print(score_table(evaluation))
    print(f"report: {output / 'report.html'}")
    return 0


def predict_command(settings: Namespace) -> int:
    """Label files; a picture that cannot be read is named at the end, after the others are done."""
    from sanet.inference.files import predict_files
    from sanet.inference.predictor import Predictor

    predictor = Predictor(_model_in(settings.model), settings.device, settings.window)
    failures = predict_files(predictor, settings.pictures, settings.output)
    print(f"masks, overlays and predictions.jsonl: {settings.output}")
    for failure in failures:
        print(f"sanet: {failure}", file=sys.stderr)
    return 1 if failures else 0


def check_data_command(settings: Namespace) -> int:
    """List everything that is wrong with a data set."""
    from sanet.data.catalog import data_source
    from sanet.data.doctor import examine
    from sanet.data.files import FileSource

    source = data_source(settings.data)
    if not isinstance(source, FileSource):
        print(f"{settings.data.name} is generated: there are no files to check")
        return 0
    diagnosis = examine(source)
    print(diagnosis)
    return 1 if diagnosis.errors else 0


def profile_command(settings: Namespace) -> int:
    """Measure networks, print the tables, and write them where a folder is named."""
    from sanet.deploy.profile import profile
    from sanet.deploy.tables import render, write

    config = ProfileConfig(**{item.name: settings[item.name] for item in fields(ProfileConfig)})
    found = profile(config)
    print(render(found))
    if config.output is not None:
        print("\nwritten: " + ", ".join(str(path) for path in write(found, Path(config.output))))
    return 1 if any(cost.problem for cost in found.costs) else 0


def export_command(settings: Namespace) -> int:
    """Write a file that runs without this package, and print how it compares with the network."""
    from sanet.deploy.export import default_path, export
    from sanet.deploy.quantize import export_int8
    from sanet.models.networks import load_model

    directory = _model_in(settings.trained)
    model = load_model(directory)
    path = settings.output or default_path(directory, settings.format)
    if settings.format == "onnx-int8":
        print(export_int8(model, path, settings.data, settings.split, settings.calibration, settings.largest_loss))
    else:
        print(export(model, path, settings.format))
    print(f"export: {path}")
    return 0


def _add_train_options(parser: Parser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_argument("--resume", type=str | None, help="run directory to go on with, from its last checkpoint")
    parser.add_class_arguments(TrainConfig, None)


def _add_evaluate_options(parser: Parser) -> None:
    parser.add_argument("trained", type=str, metavar="MODEL", help="run directory, model directory or exported file")
    parser.add_argument("--split", type=str, default="test", help="split to score")
    parser.add_argument("--output", type=str | None, help="folder for scores.json and report.html")
    _add_device_options(parser)
    parser.add_class_arguments(DataConfig, "data", help="the data set; by default the one the run was trained on")


def _add_predict_options(parser: Parser) -> None:
    parser.add_argument("pictures", type=str, nargs="+", metavar="PICTURE", help="files, folders and globs")
    parser.add_argument("--model", type=str, required=True, help="run directory, model directory or exported file")
    parser.add_argument("--output", type=str, default="predictions", help="folder for what is found")
    _add_device_options(parser)


def _add_device_options(parser: Parser) -> None:
    parser.add_argument("--device", type=str | None, help="cpu, cuda …; by default a GPU where there is one")
    parser.add_argument(
        "--window", type=int, default=1024, help="pictures of more than WINDOW x WINDOW pixels are labelled in windows"
    )


def _add_check_data_options(parser: Parser) -> None:
    parser.add_class_arguments(DataConfig, "data", help="the data set")


def _add_profile_options(parser: Parser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(ProfileConfig, None)


def _add_export_options(parser: Parser) -> None:
    parser.add_argument("trained", type=str, metavar="MODEL", help="run directory, or a model directory")
    parser.add_argument("--format", type=ExportFormat, default="onnx", help="what to write")
    parser.add_argument("--output", type=str | None, help="the file; by default beside the model, as runs/x/model.onnx")
    parser.add_argument("--split", type=str, default="val", help="onnx-int8: split on which its cost is measured")
    parser.add_argument(
        "--calibration", type=int, default=32, help="onnx-int8: pictures of the train split that set its ranges"
    )
    parser.add_argument(
        "--largest_loss", type=float, default=0.02, help="onnx-int8: of mIoU, from 0 to 1; what loses more is not kept"
    )
    parser.add_class_arguments(
        DataConfig, "data", help="onnx-int8: the data set; by default the one the run was trained on"
    )


class Command(NamedTuple):
    """One word after ``sanet``: what it takes, what it does, and how ``--help`` puts it."""

    add_options: Callable[[Parser], None]
    run: Callable[[Namespace], int]
    summary: str
    usage: str


COMMANDS = {
    "check-data": Command(
        _add_check_data_options, check_data_command, "list everything that is wrong with a data set", "[options]"
    ),
    "train": Command(_add_train_options, train_command, "train a network", "[options]"),
    "evaluate": Command(
        _add_evaluate_options, evaluate_command, "score a model on a split of a data set", "MODEL [options]"
    ),
    "predict": Command(
        _add_predict_options,
        predict_command,
        "label the pixels of pictures",
        "PICTURE [PICTURE ...] --model MODEL [options]",
    ),
    "export": Command(
        _add_export_options,
        export_command,
        "write a network as a file that runs without this package",
        "MODEL [options]",
    ),
    "profile": Command(
        _add_profile_options, profile_command, "measure what networks cost: parameters, MACs, memory, time", "[options]"
    ),
}


def _create_parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="sanet", description=DESCRIPTION, formatter_class=HelpFormatter, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('sanet-segmentation')}")
    group = parser.add_subcommands(required=True, metavar="COMMAND")
    commands: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        summary = f"{command.summary[0].upper()}{command.summary[1:]}."
        commands[name] = Parser(description=summary, usage=f"sanet {name} {command.usage}")
        command.add_options(commands[name])
        group.add_subcommand(name, commands[name], help=command.summary)
        commands[name].prog = f"sanet {name}"
        commands[name].words = list(commands[name].get_defaults().keys())
    # A wrong key in a YAML file is reported here, not by the parser of the command.
    parser.words = [*COMMANDS, *(word for command in commands.values() for word in command.words)]
    return parser, commands


def _defaults_from(run: Path, command: str) -> dict[str, Any]:
    """The configuration of a run under dotted names, as far as the command has them."""
    stored = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    groups = stored if command == "train" else {"data": stored["data"]}
    defaults: dict[str, Any] = {}
    for name, value in groups.items():
        defaults |= (
            {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
        )
    return defaults


def _model_in(directory: str) -> str:
    """A run directory keeps its model in model/."""
    run = Path(directory)
    if (run / MODEL).is_dir():
        return str(run / MODEL)
    if (run / CONFIG).exists():
        raise SanetError(f"{run} is a run that is not finished; go on with it: sanet train --resume {quote(directory)}")
    return directory


if __name__ == "__main__":
    sys.exit(main())
