"""Which dataset, and what is in it: the settings that every command shares."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from sanet.reading import ImageReading
from sanet.settings import Chosen, Options, check, within
from sanet.structures import Color, UsageError

MaskFormat = Literal["auto", "index", "color", "pages"]

# Datasets with classes of their own.
OF_PUBLISHERS = ("camvid", "scenes", "voc", "voc_aug")
# Datasets of which the number of images is published, and checked.
COUNTED = ("voc", "voc_aug")


@dataclass(frozen=True)
class DataConfig:
    """Which dataset, and where it is.

    Args:
        name: "auto" (what is found in the root, and without one the scenes), "scenes" (built in, needs no files),
            "folder" (images and masks), a format of annotations ("coco", "cvat", "labelme", "labelstudio", "via",
            "yolo", "geojson", or one of your own), "camvid", "voc", "voc_aug", or a source of your own,
            "my_module:Name".
        root: folder that holds the dataset.
        classes: folder only: class names, in the order of their indices in the masks.
        colors: folder only: one RGB colour per class; the colours in the masks with mask_format "color".
        ignore_index: folder only: mask value that is ignored by the loss and the metrics.
        background: folder only: name of the class that means "none of the others".
        mask_format: folder only: "index" (greyscale or palette PNG), "color" (exact RGB colours), "pages" (a page for
            each class, the last on top; -1 in none), or "auto": the first or the second, as the masks are stored.
        ignore_color: folder only: with mask_format "color", the colour that is ignored.
        allow_subset: voc and voc_aug only: a part of the published dataset is meant; its counts are not checked, and
            scores on it cannot be compared with published ones.
        options: further arguments of a source of your own.
        values: folder only: what the values, colours or names in the masks mean: {0: road, 255: crack}, or
            {vehicle: [car, bus], ignore: [9]} to merge and to ignore.
        masks: folder only: the folder, or the ending of names, that says what the masks are, where several could.
        group: folder only: regular expression; images whose names have the same match (its first group, where it has
            one) are in one split, such as those of a patient.
        split: folder without splits only: {val: 0.2, test: 0.1, seed: 0} or {folds: 5, fold: 0}.
        images: datasets of files only: images that are not RGB of 8 bits.
    """

    name: Chosen = "auto"
    root: str | None = None
    classes: tuple[str, ...] = ()
    colors: tuple[Color, ...] = ()
    ignore_index: int = within(255, -(2**31), 2**31 - 1)
    background: str | None = None
    mask_format: MaskFormat = "auto"
    ignore_color: Color | None = None
    allow_subset: bool = False
    options: Options = field(default_factory=dict)
    values: Options = field(default_factory=dict, metadata={"before": {}})
    masks: str | None = field(default=None, metadata={"before": None})
    group: str | None = field(default=None, metadata={"before": None})
    split: Options = field(default_factory=dict, metadata={"before": {}})
    images: ImageReading = field(default_factory=ImageReading, metadata={"before": ImageReading()})

    def __post_init__(self) -> None:
        check(self, "data.")
        if self.allow_subset and self.name not in COUNTED:
            raise UsageError(f"data.allow_subset: only for {', '.join(COUNTED)}; {self.name!r} has no published counts")
        if self.name == "scenes" and self.root is not None:
            raise UsageError(
                f"data.root {self.root}: the scenes are built in; leave data.name out, or name the dataset"
            )
        if self.name in OF_PUBLISHERS:
            given = own_settings(self)
            if given:
                raise UsageError(f"data.{given[0]}: only for your own folder; the dataset {self.name!r} has its own")
        if self.background is not None and self.classes and self.background not in self.classes:
            raise UsageError(f"data.background {self.background!r} is not one of data.classes")
        used = [tuple(color) for color in (*self.colors, *filter(None, [self.ignore_color]))]
        if self.mask_format == "color" and len(set(used)) < len(used):
            raise UsageError("data.colors and data.ignore_color must all differ, or classes cannot be distinguished")
        if self.mask_format == "color" and self.classes and not self.colors and not self.values:
            raise UsageError('data.mask_format "color" needs data.colors, one RGB colour per class, or data.values')
        if self.mask_format == "index" and self.ignore_color is not None:
            raise UsageError('data.ignore_color belongs to data.mask_format "color"; use data.ignore_index here')


def own_settings(data: DataConfig) -> list[str]:
    """Names of the settings that say what is in a dataset of one's own, of those that are given."""
    shared = {"name", "root", "options", "allow_subset", "images"}
    return [
        item.name
        for item in fields(data)
        if item.name not in shared and getattr(data, item.name) not in (item.default, {})
    ]
