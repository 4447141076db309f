"""CamVid street scenes in the SegNet layout: ``train/`` beside ``trainannot/``, likewise ``val`` and ``test``.

Source: Brostow et al., "Semantic object classes in video", 2009; the 11 classes and 367/101/233 images of
480x360 are those of Badrinarayanan et al., "SegNet", 2017. Masks hold 0 to 10, and 11 for void. The .txt lists
beside the folders hold paths of another machine, so the folders decide.
"""

from __future__ import annotations

from pathlib import Path

from sanet.data.decoding import DataError
from sanet.data.listing import existing_root, pair_by_name
from sanet.data.source import Record, Source
from sanet.structures import LabelSet


class CamVid(Source):
    """Images of ``root/train`` paired with the masks of ``root/trainannot`` by file name, and so on.

    Raises:
        DataError: a folder is missing.
    """

    labels = LabelSet(
        names=(
            "sky", "building", "pole", "road", "pavement", "tree",
            "sign", "fence", "car", "pedestrian", "bicyclist",
        ),
        colors=(
            (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
            (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
        ),
        ignore_index=11,
    )  # fmt: skip
    splits = ("train", "val", "test")
    published = True
    root: Path

    def __init__(self, root: str | Path) -> None:
        self.root = existing_root(root)
        self.complete = tuple(self.root / name for split in self.splits for name in (split, f"{split}annot"))
        missing = [folder.name for folder in self.complete if not folder.is_dir()]
        if missing:
            raise DataError(f"{root} has no {', '.join(missing)}; data.root is the folder that holds them")

    def records(self, split: str) -> list[Record]:
        """The images of one split, by name."""
        return pair_by_name(self.root / split, self.root / f"{split}annot")
