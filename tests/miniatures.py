"""The published data sets in miniature: few small pictures, in exactly the files and forms of the originals.

Every writer returns the masks that it wrote, as class indices of the data set, by picture. Masks are no larger than
64x48, and random, but for COCO's, which are outlined by polygons and run lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
from numpy.typing import NDArray
from PIL import Image

from sanet.structures import default_colors

SIZE = (48, 64)  # height, width
VOC_TRAIN = ("2007_000032", "2007_000039", "2008_000008")
VOC_VAL = ("2007_000033", "2008_000003")
VOC_TEST = ("2008_000006", "2008_000011")
# SBD was published with pictures of VOC 2012's val in its lists, and with some of its train.
SBD_TRAIN = ("2008_000002", "2007_000032", "2008_000003")
SBD_VAL = ("2008_000010", "2007_000033")
CONTEXT_TRAIN = ("2008_000002", "2008_000004", "2008_000012")
CONTEXT_VAL = ("2008_000003", "2008_000019")

Mask = NDArray[Any]


def seeded(*parts: str) -> np.random.Generator:
    """Random numbers that no other name has."""
    return np.random.default_rng(list("/".join(parts).encode()))


def write_picture(path: Path, size: tuple[int, int] = SIZE) -> None:
    """A JPEG that no other name has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = seeded("picture", path.stem).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def write_halves(root: Path) -> None:
    """A folder of four images in ``train`` and four in ``val``, dark on the left and light on the right."""
    for split, index in ((split, index) for split in ("train", "val") for index in range(4)):
        mask = np.zeros((40, 48), np.uint8)
        mask[:, 10 + 5 * index :] = 1
        image = np.repeat((60 + 120 * mask)[..., None], 3, axis=2) + np.uint8(index + 10 * (split == "val"))
        for kind, pixels in (("images", image), ("masks", mask)):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / split / kind / f"{split}{index}.png")


def write_list(path: Path, names: Iterable[str]) -> None:
    """One name a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def blocks(rng: np.random.Generator, values: Sequence[int]) -> Mask:
    """A mask of 8x8 blocks, with each of the values at least once where there are no more than blocks."""
    rows, columns = SIZE[0] // 8, SIZE[1] // 8
    drawn = np.concatenate([np.array(values), rng.choice(np.array(values), rows * columns)])[: rows * columns]
    return np.kron(rng.permutation(drawn).reshape(rows, columns), np.ones((8, 8), np.int64))


def write_voc(
    root: Path,
    train: Sequence[str] = VOC_TRAIN,
    val: Sequence[str] = VOC_VAL,
    test: Sequence[str] = VOC_TEST,
) -> dict[str, Mask]:
    """VOC 2012: palette PNGs with borders of 255 between the blocks; ``test`` has pictures and a list only."""
    folder, masks = root / "VOCdevkit" / "VOC2012", {}
    (folder / "SegmentationClass").mkdir(parents=True, exist_ok=True)
    for name in (*train, *val):
        mask = blocks(seeded("voc", name), range(21)).astype(np.uint8)
        mask[::8], mask[:, ::8] = 255, 255
        picture = Image.fromarray(mask)
        picture.putpalette([value for color in default_colors(256) for value in color])
        picture.save(folder / "SegmentationClass" / f"{name}.png")
        masks[name] = mask
    for name in (*train, *val, *test):
        write_picture(folder / "JPEGImages" / f"{name}.jpg")
    lists = folder / "ImageSets" / "Segmentation"
    for split, names in {"train": train, "val": val, "trainval": [*train, *val]}.items():
        write_list(lists / f"{split}.txt", names)
    if test:
        write_list(lists / "test.txt", test)
    return masks


def write_sbd(root: Path, train: Sequence[str] = SBD_TRAIN, val: Sequence[str] = SBD_VAL) -> dict[str, Mask]:
    """SBD: .mat files of a struct GTcls with Segmentation, and with the other fields of the original."""
    folder, masks = root / "benchmark_RELEASE" / "dataset", {}
    (folder / "cls").mkdir(parents=True, exist_ok=True)
    for name in (*train, *val):
        mask = blocks(seeded("sbd", name), range(21)).astype(np.uint8)
        boundaries = np.empty((20, 1), object)
        for index in range(20):
            boundaries[index, 0] = scipy.sparse.csc_matrix(mask == index + 1, dtype=bool)
        present = np.setdiff1d(np.unique(mask), [0]).astype(np.uint8)[:, None]
        content = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
        scipy.io.savemat(folder / "cls" / f"{name}.mat", {"GTcls": content}, do_compression=True)
        write_picture(folder / "img" / f"{name}.jpg")
        masks[name] = mask
    write_list(folder / "train.txt", train)
    write_list(folder / "val.txt", val)
    return masks


def write_context(
    root: Path, train: Sequence[str] = CONTEXT_TRAIN, val: Sequence[str] = CONTEXT_VAL
) -> dict[str, Mask]:
    """PASCAL Context: .mat files with LabelMap, all 459 labels and 0 in them; returned are the labels, not classes."""
    from reproduce.context import CLASSES, FULL_NAMES

    folder, masks = root / "VOCdevkit" / "VOC2010", {}
    (root / "trainval").mkdir(parents=True, exist_ok=True)
    full = {number: FULL_NAMES.get(name, name) for name, number in CLASSES.items()}
    # The other labels have names of their own, some of two words; "label 7" stands for them.
    lines = [f"{number}: {full.get(number, f'label {number}')}" for number in range(1, 460)]
    (root / "labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [f"{index}: {name}" for index, name in enumerate(CLASSES, 1)]
    (root / "59_labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in (*train, *val):
        rng = seeded("context", name)
        mask = np.where(rng.random(SIZE) < 0.5, rng.choice([0, *CLASSES.values()], SIZE), rng.integers(0, 460, SIZE))
        mask.flat[:460] = np.arange(460)
        masks[name] = mask.astype(np.uint16)
        scipy.io.savemat(root / "trainval" / f"{name}.mat", {"LabelMap": masks[name]}, do_compression=True)
        write_picture(folder / "JPEGImages" / f"{name}.jpg")
    lists = folder / "ImageSets" / "Main"
    for split, names in {"train": train, "val": val, "trainval": [*train, *val]}.items():
        write_list(lists / f"{split}.txt", names)
    # Lists of single classes lie beside them, with 1 or -1 behind every name.
    write_list(lists / "dog_train.txt", [f"{name} -1" for name in train])
    return masks


# COCO's ids of VOC's classes, in VOC's order.
COCO_IDS = {
    "airplane": 5, "bicycle": 2, "bird": 16, "boat": 9, "bottle": 44, "bus": 6, "car": 3, "cat": 17, "chair": 62,
    "cow": 21, "dining table": 67, "dog": 18, "horse": 19, "motorcycle": 4, "person": 1, "potted plant": 64,
    "sheep": 20, "couch": 63, "train": 7, "tv": 72,
}  # fmt: skip
OTHER_IDS = {"truck": 8, "traffic light": 10, "zebra": 24}


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    """The polygon around the pixels from left and top to before right and bottom."""
    return [float(number) for number in (left, top, right, top, right, bottom, left, bottom)]


def run_lengths(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed form: how many pixels are out, in, out …, column by column."""
    flat = pixels.T.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    edges = [0, *changes, len(flat)]
    return {"size": list(pixels.shape), "counts": [b - a for a, b in pairwise(edges)]}


def write_coco(root: Path, train: int = 3, val: int = 2) -> dict[str, Mask]:
    """COCO 2017 before its masks are rendered; in every picture is a truck, a crowd, and objects one upon the other.

    The last picture of each split has too little of VOC's classes to keep; its name is not among those returned.
    """
    masks: dict[str, Mask] = {}
    (root / "coco" / "annotations").mkdir(parents=True)
    ids = {**COCO_IDS, **OTHER_IDS}
    for split, first, count in (("train2017", 9, train), ("val2017", 139, val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count + 1):
            number = first + 16 * index
            name = f"{number:012d}"
            write_picture(root / "coco" / split / f"{name}.jpg")
            images.append({"id": number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]})
            # An empty place, where all is too small to keep.
            mask, items = _coco_picture(index) if index < count else (None, [("dog", rectangle(3, 3, 20, 20), 0)])
            for category, outline, crowd in items:
                annotations.append(
                    {
                        "id": 1000 * number + len(annotations),
                        "image_id": number,
                        "category_id": ids[category],
                        "segmentation": outline if isinstance(outline, dict) else [outline],
                        "iscrowd": crowd,
                        "area": 1.0,
                        "bbox": [0.0, 0.0, 1.0, 1.0],
                    }
                )
            if mask is not None:
                masks[name] = mask
        categories = [{"id": number, "name": name, "supercategory": "thing"} for name, number in ids.items()]
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        (root / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return masks


def _coco_picture(index: int) -> tuple[Mask, list[tuple[str, Any, int]]]:
    """What is in a picture, and its mask painted by hand: two objects, the small one listed first, crowd and truck."""
    names = list(COCO_IDS)
    large, small = names[(7 * index) % 20], names[(7 * index + 3) % 20]
    mask = np.zeros(SIZE, np.uint8)
    crowd = np.zeros(SIZE, bool)
    crowd[0:20, 30:60] = True
    mask[crowd] = 255
    mask[4:44, 2:42] = names.index(large) + 1
    mask[10:20, 30 + index : 50] = names.index(small) + 1
    mask[45:48, 60:64] = 255  # 12 pixels: tiny
    items = [
        (small, rectangle(30 + index, 10, 50, 20), 0),
        ("person", run_lengths(crowd), 1),
        ("truck", rectangle(0, 0, 64, 48), 0),
        (large, rectangle(2, 4, 42, 44), 0),
        ("cat", rectangle(60, 45, 64, 48), 0),
    ]
    return mask, items


def write_camvid(root: Path, train: int = 4, val: int = 2, test: int = 2) -> dict[str, Mask]:
    """CamVid in the SegNet layout: PNGs, with void, which is 11, and every class in each mask."""
    masks: dict[str, Mask] = {}
    for split, count in {"train": train, "val": val, "test": test}.items():
        (root / f"{split}annot").mkdir(parents=True)
        for name in (f"{split}_{index}" for index in range(count)):
            masks[name] = blocks(seeded("camvid", name), range(12)).astype(np.uint8)
            Image.fromarray(masks[name]).save(root / f"{split}annot" / f"{name}.png")
            write_picture(root / split / f"{name}.png")
    return masks
