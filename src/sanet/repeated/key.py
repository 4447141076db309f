"""What a run is called, so that it is taken over where everything is alike, and what else differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

import timm

from sanet import references
from sanet.config import CONFIG, MODEL, TrainConfig, plain
from sanet.evaluation.protocol import digest_of
from sanet.settings import key_of
from sanet.structures import SanetError
from sanet.training.run import RECORD, changed
from sanet.yaml_files import read_mapping

# What does not decide how a run comes out; its seed is part of its name, and of the data only the content counts.
INCIDENTAL = ("output", "num_workers", "accelerator", "checkpoint_minutes", "seed", "data", "loggers")


def key_of_runs(config: TrainConfig, images: Mapping[str, Any]) -> str:
    """Runs of one key come out alike: the settings that decide, the code that they name, and the images and masks.

    Tables in one folder share them.
    """
    settings = {name: value for name, value in key_of(config).items() if name not in INCIDENTAL}
    digest = digest_of([settings, _code(config), [images.get(name) for name in ("train", "val")]])
    return f"{settings['model']['name']}-{config.model.backbone}-{digest[:8]}".replace(":", ".")


def differences(config: TrainConfig, images: Mapping[str, Any], others: Sequence[Path]) -> str:
    """The finished run of the same network and seed that is most alike, and in what it differs; "" without one.

    Args:
        config: the run, with its directory.
        images: digests of the splits, by name.
        others: directories of runs that are left out.
    """
    directory = Path(config.output)
    stem = directory.name.removesuffix(f"-seed{config.seed}").rpartition("-")[0]
    found = []
    for other in sorted(directory.parent.glob(f"{escape(stem)}-{'?' * 8}-seed{config.seed}")):
        if other in others or not (other / MODEL).is_dir():
            continue
        try:
            before, record = read_mapping(other / CONFIG), json.loads((other / RECORD).read_text(encoding="utf-8"))
            names = changed(config, before)
            names += [name for name in ("epochs", "patience") if before.get(name) != getattr(config, name)]
            names = [name for name in names if name.partition(".")[0] not in INCIDENTAL]
            code = _code(config)
            names += [f"the code of {name}" for name in code if code[name] != record["code"].get(name)]
            names += [f"the images or masks of {name}" for name, data in record["data"].items() if data != images[name]]
        except (SanetError, OSError, ValueError, LookupError):  # of another version
            continue
        found.append((len(names), f"{other}, which differs in {', '.join(names) or 'the version of sanet'}"))
    return min(found, default=(0, ""))[1]


def _code(config: TrainConfig) -> dict[str, str]:
    """Digests of the opened packages that settings name, also by a backbone that one of them has registered."""
    names = {text.partition(":")[0] for text in _texts(plain(config)) if ":" in text}
    if timm.is_model(config.model.backbone):
        names.add(timm.model_entrypoint(config.model.backbone).__module__)
    return references.digests({name.partition(".")[0] for name in names})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
