"""Training runs that are kept where they are finished, and gone on with where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sanet import distributed
from sanet.config import CHECKPOINTS, CONFIG, MODEL, TrainConfig
from sanet.experiments.recipes import Recipe, recipe
from sanet.structures import UsageError
from sanet.training.checkpoints import CheckpointFolder
from sanet.training.fit import train
from sanet.training.run import changed
from sanet.yaml_files import read_mapping


def completed(config: TrainConfig) -> Path:
    """The directory of a finished run: kept, or trained to its end from wherever it is.

    Raises:
        Interrupted, SanetError: as ``train``.
    """
    directory = Path(config.output)
    if not distributed.broadcast_from_main((directory / MODEL).is_dir):
        begun = distributed.broadcast_from_main(lambda: bool(CheckpointFolder(directory / CHECKPOINTS).listed()))
        train(config, resume=begun)
    return directory


def _require_same(config: TrainConfig) -> None:
    """Raise a UsageError where a run is finished there that had other settings, or fewer epochs."""
    directory = Path(config.output)
    if (directory / MODEL).is_dir():
        stored = read_mapping(directory / CONFIG)
        differing = changed(config, stored) + ["epochs"] * (stored.get("epochs") != config.epochs)
        if differing:
            raise UsageError(
                f"{directory} was trained with other settings ({', '.join(differing)}); delete it, or choose another "
                "--output"
            )


def pretrained(chosen: Recipe, config: TrainConfig) -> TrainConfig:
    """The run of a recipe with the network that it starts from, which is trained first where it is not there yet.

    It goes into a folder beside the run's, and what was interrupted goes on when the command is repeated.

    Args:
        chosen: the recipe.
        config: its run, as the user wants it.

    Raises:
        UsageError: what is finished there was trained with other settings.
    """
    if chosen.pretraining is None or config.model.init_from is not None:
        return config
    output = Path(config.output)
    output = output.with_name(f"{output.name}-pretraining")
    first = recipe(chosen.pretraining).config
    kept = (
        "augmentation",
        "gradient_accumulation",
        "num_workers",
        "seed",
        "accelerator",
        "precision",
        "window",
        "checkpoint_minutes",
        "batch_size",
    )
    first = replace(
        first,
        output=str(output),
        data=replace(first.data, root=config.data.root, allow_subset=config.data.allow_subset),
        model=config.model,
        **{name: getattr(config, name) for name in kept},
    )
    distributed.broadcast_from_main(lambda: _require_same(first))
    completed(first)
    return replace(config, model=replace(config.model, init_from=str(output)))
