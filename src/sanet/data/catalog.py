"""The datasets by name."""

from __future__ import annotations

from sanet.config import DataConfig
from sanet.data.camvid import CamVid
from sanet.data.folder import Folder
from sanet.data.scenes import Scenes
from sanet.data.source import Source
from sanet.data.voc import VOC, AugmentedVOC
from sanet.references import Kind
from sanet.structures import UsageError

SOURCES = Kind("dataset", {"camvid": CamVid, "folder": Folder, "scenes": Scenes, "voc": VOC, "voc_aug": AugmentedVOC})
FOLDER = ("classes", "colors", "ignore_index", "background", "mask_format", "ignore_color")


def data_source(config: DataConfig) -> Source:
    """The dataset that a configuration names: a built-in one, or a source of the user's own.

    Raises:
        UsageError: an unknown name, of which the message lists the choices; options that it does not have; or what is
            named is no source.
        DataError: the root folder does not exist or has no layout that is known.
    """
    options = dict(config.options)
    if config.name == "folder":
        options |= {name: getattr(config, name) for name in FOLDER}
    if config.allow_subset:
        options["allow_subset"] = True
    source = SOURCES.build({"name": config.name, "options": options}, root=config.root)
    if not isinstance(source, Source):
        raise UsageError(f"data.name {config.name!r}: derive it from sanet.Source")
    return source
