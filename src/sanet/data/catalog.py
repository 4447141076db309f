"""The datasets by name."""

from __future__ import annotations

from dataclasses import replace
from inspect import Parameter, signature

from sanet.config import DataConfig
from sanet.data.camvid import CamVid
from sanet.data.decoding import DataError
from sanet.data.folder import Folder
from sanet.data.formats.catalog import formats_of, names_format
from sanet.data.formats.source import Annotated
from sanet.data.layout import has_masks
from sanet.data.listing import existing_root
from sanet.data.scenes import Scenes
from sanet.data.source import Source, explained
from sanet.data.voc import VOC, AugmentedVOC
from sanet.data_config import own_settings
from sanet.references import Kind, name_of
from sanet.structures import LabelSet, UsageError

SOURCES = Kind("dataset", {"camvid": CamVid, "folder": Folder, "scenes": Scenes, "voc": VOC, "voc_aug": AugmentedVOC})
SPLITS_OF_CAMVID = [f"{split}{kind}" for split in CamVid.splits for kind in ("", "annot")]
NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def data_source(config: DataConfig) -> Source:
    """The dataset that a configuration names: a built-in one, or a source of the user's own.

    Raises:
        UsageError: an unknown name, of which the message lists the choices; an option that the dataset does not
            have, or a missing one that it needs; or what is named is no source.
        DataError: the root folder does not exist, cannot be read or has no layout that is known.
    """
    if config.name == "auto":
        config = replace(config, name=recognised(config.root))
    if config.name == "folder":
        with explained(config.root):
            return Folder(config)
    if names_format(config.name):
        with explained(config.root):
            return Annotated(config)
    found = SOURCES.find(config.name)
    if isinstance(found, Source):
        return found
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise UsageError(f"data.name {config.name!r}: derive it from sanet.Source")
    if given := own_settings(config):
        raise UsageError(f"data.{given[0]}: {name_of(config.name)!r} says by itself what is in it; leave it out")
    options = dict(config.options)
    if config.allow_subset:
        options["allow_subset"] = True
    if config.root is not None:
        options["root"] = config.root
    for name, parameter in signature(found).parameters.items():
        if name not in options and parameter.default is parameter.empty and parameter.kind in NAMED:
            wanted = "data.root must name the folder" if name == "root" else f"data.options.{name} must be set"
            raise UsageError(f"{wanted} for the dataset {name_of(config.name)!r}: --{wanted.split()[0]} …")
    with explained(config.root):
        source: Source = SOURCES.build({"name": config.name, "options": options})
    if source.root is not None:
        existing_root(source.root)
    source.settings = config
    if config.images.of_values:
        if not source.reads_files:
            raise UsageError(f"data.images: {name_of(config.name)!r} reads images in its own way, not from files")
        return source.reading(config.images)
    return source


def recognised(root: str | None) -> str:
    """The name of the dataset in a folder; that of the built-in scenes without one."""
    if root is None:
        return "scenes"
    place = existing_root(root)
    if all((place / name).is_dir() for name in SPLITS_OF_CAMVID):
        return "camvid"
    if (place / "VOCdevkit" / "VOC2012" / "JPEGImages").is_dir():
        return "voc"
    reasons = formats_of(place)
    if reasons and has_masks(place):
        reasons["folder"] = "images with masks"
    if len(reasons) > 1:
        what = " or ".join(f"--data.name {name} ({reason})" for name, reason in reasons.items())
        raise DataError(f"{root} could be read in {len(reasons)} ways; choose one: {what}")
    return next(iter(reasons), "folder")


def labelled_as(config: DataConfig, labels: LabelSet) -> DataConfig:
    """Settings of a folder whose masks were made as those that a model was trained on."""
    values = dict(labels.values)
    return replace(config, classes=labels.names, values=values, colors=labels.colors, ignore_index=labels.ignore_index)
