"""The directory of a training run: one run at a time uses it, and resumes in it as it began.

``config.yaml`` holds the settings, with absolute paths and every reference by its name; ``record.json`` what ran: the
versions of the packages, the code that was opened, and a digest of the names and masks of each split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from sanet import distributed, files, references
from sanet.config import CHECKPOINTS, CONFIG, CROPS, MODEL, PLAN, DataConfig, TrainConfig, plain
from sanet.data.fingerprint import fingerprint
from sanet.data.source import Source
from sanet.evaluation.copying import COPYING, SECONDS, copy_nearest
from sanet.evaluation.evaluate import files_in
from sanet.models.store import HUB
from sanet.reading import ImageReading
from sanet.settings import settings_of, with_newer_fields
from sanet.structures import SanetError, UsageError, say
from sanet.training.checkpoints import CheckpointFolder, read_checkpoint
from sanet.training.clock import Clock
from sanet.training.saving import out_of_patience
from sanet.training.task import STATE
from sanet.yaml_files import read_mapping

RECORD, FORMAT = "record.json", 2
PACKAGES = ("sanet-segmentation", "torch", "torchvision", "timm", "lightning", "numpy")
SPLITS = ("train", "val")
# Where TensorBoard finds its events.
TENSORBOARD = "tensorboard"
# What may differ when a run resumes: where and how long it trains, not what is trained.
MAY_CHANGE = {
    *("output", "data.root", "epochs", "patience"),
    *("threads", "num_workers", "accelerator", "checkpoint_minutes"),
}


@dataclass(frozen=True)
class Position:
    """Where a run resumes.

    Attributes:
        checkpoint: the file, found to be complete.
        epochs: finished epochs.
        batches: of the epoch after them, batches that each process has behind it.
        stopped: whether its patience or its budget is over.
    """

    checkpoint: Path
    epochs: int
    batches: int
    stopped: bool


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Keep everything but the processes of this job out of a directory; see ``files.locked``."""
    with ExitStack() as stack:
        distributed.broadcast_from_main(lambda: stack.enter_context(files.locked(directory)))
        yield


def with_known_range(config: TrainConfig) -> TrainConfig:
    """With the range of values that the run has measured already, if it reads images in the same way."""
    images, path = config.data.images, Path(config.output) / CONFIG
    if not images.of_values or images.low or not path.is_file():
        return config
    stored = read_mapping(path).get("data")
    try:
        known = settings_of(ImageReading, stored["images"]) if isinstance(stored, dict) else images
    except (LookupError, TypeError, UsageError):
        return config
    same = known.without_range() == images
    return replace(config, data=replace(config.data, images=known)) if same else config


def refuse_used(config: TrainConfig, settled: bool = True) -> None:
    """Raise a UsageError where there is anything that a new run would mix with.

    What the same run has left that was killed before its first checkpoint does not count: there is nothing to lose.
    Where settings are not ``settled`` yet, it may be the same.
    """
    directory = Path(config.output)
    found = {path.name for path in directory.glob("*") if not files.hidden(path)}
    begun = bool(CheckpointFolder(directory / CHECKPOINTS).listed())
    if not begun and found <= {CONFIG, RECORD, TENSORBOARD, CHECKPOINTS, CROPS, PLAN}:
        files.require_own(directory / CONFIG, directory / RECORD)
        if not settled:
            return
        config, nothing = with_known_range(config), DataConfig()
        # What is left to be found out about the dataset was found out by that run as well.
        left = {f"data.{name}" for name, value in vars(nothing).items() if getattr(config.data, name) == value}
        if CONFIG not in found or set(changed(config, read_mapping(directory / CONFIG))) <= left:
            return
    if found:
        remedy = f"resume it: sanet train --resume {quote(str(directory))}" if begun else "delete it"
        raise UsageError(f"--output: {directory} is not empty; choose another --output, or {remedy}")


def keep(config: TrainConfig, record: dict[str, Any], plan: str = "") -> None:
    """Write config.yaml, record.json and, if there is a plan, plan.yaml; one that says the same stays as it is."""
    directory, settings = Path(config.output), plain(_absolute(config))
    if not (directory / CONFIG).exists() or read_mapping(directory / CONFIG) != settings:
        with files.written(directory / CONFIG) as aside:
            aside.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    for name, text in ((RECORD, json.dumps(record, indent=1) + "\n"), (PLAN, plan)):
        path = directory / name
        if text and not (path.exists() and path.read_text(encoding="utf-8") == text):
            with files.written(path) as aside:
                aside.write_text(text, encoding="utf-8")


def record_of(source: Source) -> dict[str, Any]:
    """What a run that starts now runs."""
    return {
        "format": FORMAT,
        "versions": {package: version(package) for package in PACKAGES},
        "modules": references.opened(),
        "code": references.digests(),
        "data": {split: fingerprint(source, split) for split in SPLITS},
        "notes": list(source.notes),
    }


def copying_of(config: TrainConfig, source: Source, resume: bool) -> dict[str, Any]:
    """What copying masks scores, see ``copy_nearest``, printed; of a run that resumes, as its record has it."""
    if resume:
        return kept_copying(Path(config.output))
    seconds = SECONDS if config.budget is None else min(SECONDS, config.budget / 20)
    copied = copy_nearest(source.open("train"), source.open("val"), seconds)
    say(copied)
    return copied.facts


def kept_copying(directory: Path) -> dict[str, Any]:
    """The same of a run that has begun, for its scores."""
    return {key: value for key, value in _record_in(directory).items() if key == COPYING}


def require_same(config: TrainConfig, record: dict[str, Any], trust_changes: bool) -> None:
    """Make sure that a run resumes with the code and the data with which it began; other versions are named on stderr.

    Raises:
        UsageError: something differs, and changes are not trusted.
    """
    before = _record_in(Path(config.output))
    differing = [
        f"{word} {name}"
        for word, part in (("the code of", "code"), ("the names or masks of", "data"))
        for name in {**before[part], **record[part]}
        if before[part].get(name) != record[part].get(name)
    ]
    if differing and not trust_changes:
        raise UsageError(
            f"{', '.join(differing)} changed since {config.output} began; with --trust_changes true it resumes anyway, "
            "and is then no run of the one or of the other"
        )
    versions = [
        f"{package} {before['versions'].get(package)} is now {now}"
        for package, now in record["versions"].items()
        if before["versions"].get(package) != now
    ]
    if differing or versions:
        say(f"sanet: {config.output}: {'; '.join(differing + versions)}", error=True)


def _record_in(directory: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {}
    except ValueError as error:
        raise SanetError(f"{directory / RECORD} cannot be read ({error})") from error
    if found.get("format") != FORMAT:
        raise SanetError(
            f"{directory} is a run of another version of sanet and cannot be resumed; a new run can start from its "
            f"weights: --model.init_from {quote(str(directory))}"
        )
    return found


def position_in(config: TrainConfig) -> Position:
    """The newest complete checkpoint, once it is certain that the run can resume from it as it began.

    Raises:
        SanetError: there is none, or it cannot be read.
        UsageError: something has changed that decides the outcome, a module has to be opened, or fewer epochs are
            wanted than are done; or a file that would be replaced is not as the run has left it.
    """
    directory = Path(config.output)
    folder = CheckpointFolder(directory / CHECKPOINTS)
    if not folder.listed():
        raise SanetError(f"{directory} is no run, or one without a checkpoint to resume from; start without --resume")
    closed = [module for module in _record_in(directory)["modules"] if not references.is_open(module)]
    if closed:
        words = " ".join(f"--import {module}" for module in closed)
        raise UsageError(
            f"{directory} began with {words}, which resuming does not repeat: if you trust that code, add {words}, or "
            f"sanet.use({', '.join(map(repr, closed))}) in Python"
        )
    stored = read_mapping(directory / CONFIG)
    differing = changed(config, stored)
    if differing:
        raise UsageError(
            f"{', '.join(differing)}: cannot change when a run resumes; start a new one with another output"
        )
    if stored != plain(_absolute(config)):
        files.require_own(directory / CONFIG)
    # What the end of the run writes, and what it has written before.
    files.require_own(*files_in(directory), *(directory / MODEL).rglob("*"), root=directory)
    return _position(config, folder.newest())


def _position(config: TrainConfig, path: Path) -> Position:
    state = read_checkpoint(path)
    try:
        loops = state["loops"]["fit_loop"]
        epochs = loops["epoch_progress"]["current"]
        begun = epochs["ready"] > epochs["processed"]
        batches = loops["epoch_loop.batch_progress"]["current"]["processed"] if begun else 0
        over = state["callbacks"].get(Clock.__name__, {}).get("share", 0.0) >= 1 and not begun
        stopped = over or out_of_patience(state[STATE]["history"], config)
        position = Position(path, epochs["processed"], batches, stopped)
        before = state[STATE]["processes"]
    except (LookupError, TypeError) as error:
        raise SanetError(f"{path} is no checkpoint that this version of sanet can resume from ({error!r})") from error
    if config.budget is None and config.epochs < position.epochs:
        raise UsageError(f"epochs {config.epochs}: {position.epochs} are done already")
    if position.batches and before != distributed.world_size():
        raise UsageError(
            f"{path} was written in the middle of an epoch by {before} processes, and this run has "
            f"{distributed.world_size()}; resume with as many, at least to the end of the epoch"
        )
    return position


def changed(config: TrainConfig, stored: dict[str, Any]) -> list[str]:
    """The settings, by their dotted names, that are not as they were, but for what may change when a run resumes."""
    one, other = (_flat(settings) for settings in (plain(_absolute(config)), with_newer_fields(TrainConfig, stored)))
    names = dict.fromkeys((*one, *other))
    return [name for name in names if name not in MAY_CHANGE and one.get(name) != other.get(name)]


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Each setting of a section under its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _absolute(config: TrainConfig) -> TrainConfig:
    """The same settings in whatever directory they are read."""
    data, model = config.data, config.model
    if data.root is not None:
        data = replace(data, root=os.path.abspath(data.root))
    if model.init_from is not None and not model.init_from.startswith(HUB):
        model = replace(model, init_from=os.path.abspath(model.init_from))
    return replace(config, output=os.path.abspath(config.output), data=data, model=model)
