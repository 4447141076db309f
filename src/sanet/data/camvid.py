"""CamVid street scenes in the SegNet layout: ``train/`` beside ``trainannot/``, likewise ``val`` and ``test``.

Source: Brostow et al., "Semantic object classes in video", 2009; the 11 classes and 367/101/233 pictures of
480x360 are those of Badrinarayanan et al., "SegNet", 2017. Masks hold 0 to 10, and 11 for void. The .txt lists
beside the folders hold paths of another machine, so the folders decide.
"""

from __future__ import annotations

from sanet.config import DataConfig
from sanet.data.decoding import DataError
from sanet.data.files import FileSource, existing_root, pair_by_name
from sanet.structures import LabelSet

SPLITS = ("train", "val", "test")
LABELS = LabelSet(
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


def source(config: DataConfig) -> FileSource:
    """Pictures of ``root/train`` paired with the masks of ``root/trainannot`` by file name, and so on."""
    root = existing_root(config)
    missing = [name for split in SPLITS for name in (split, f"{split}annot") if not (root / name).is_dir()]
    if missing:
        raise DataError(f"{root} has no {', '.join(missing)}; data.root is the folder that holds {', '.join(SPLITS)}")
    return FileSource(
        LABELS,
        SPLITS,
        lambda split: pair_by_name(root / split, root / f"{split}annot"),
        published=True,
        root=root,
        whole=tuple(root / name for split in SPLITS for name in (split, f"{split}annot")),
    )
