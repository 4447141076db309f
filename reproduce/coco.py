"""COCO 2017 with the classes of VOC, to train on before VOC.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. The archives train2017.zip (18 GB),
val2017.zip (0.8 GB) and annotations_trainval2017.zip (0.25 GB) of https://cocodataset.org/#download unpack to::

    coco/  train2017/  val2017/  annotations/instances_train2017.json, instances_val2017.json

``data.root`` holds ``coco``, or is it. ``python -m reproduce coco-masks ROOT`` makes palette PNGs of the annotations,
once, in ``coco/voc_masks/``:

- The 20 categories that VOC has as well become its classes; all else is background.
- Where objects overlap, the one of fewer pixels lies on top, of equal ones that with the larger annotation id.
- Crowds, which are outlined roughly, are ignored where no object lies on them.
- Objects of fewer than ``TINY_OBJECT`` pixels are ignored, since little but their outline is drawn.
- Images with at most ``SMALLEST_CONTENT`` pixels of the 20 classes are left out, as others do that train on them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as masks_of
from tqdm import tqdm

from reproduce.voc_server import VOC_CLASSES
from sanet import LabelSet, Record, SanetError, Source

SPLITS = {"train": "train2017", "val": "val2017"}
COUNTS = {"train": 118_287, "val": 5_000}
# COCO's names of VOC's classes, where they differ.
VOC_NAMES = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "couch": "sofa",
    "tv": "tvmonitor",
    "potted plant": "pottedplant",
}
TINY_OBJECT = 16
SMALLEST_CONTENT = 1000
FARTHEST = 100_000  # a corner beyond is no corner of an image; tracing the way there would take all memory
MASKS, SUMMARY = "voc_masks", "rendered.json"

Mask = NDArray[np.uint8]
LABELS = LabelSet(VOC_CLASSES, background=0)


class COCO(Source):
    """The images that have a mask.

    Args:
        root: folder of ``coco``, or ``coco`` itself.
        allow_subset: a part of the dataset is meant, so that the published numbers of images do not count.

    Raises:
        SanetError: images are missing, the masks are missing, incomplete or made by other rules, or of another number
            of images than the published one.
    """

    labels = LABELS
    splits = tuple(SPLITS)
    published = True

    def __init__(self, root: str | None, allow_subset: bool = False) -> None:
        if root is None:
            raise SanetError("data.root must name the folder with coco")
        self.root, self.folder, self.listed = Path(root), coco_folder(Path(root)), {}
        for split, name in SPLITS.items():
            masks = self.folder / MASKS / name
            if not masks.is_dir():
                raise SanetError(f"{masks} does not exist; make the masks: python -m reproduce coco-masks {root}")
            summary = _read_json(masks / SUMMARY)
            names = sorted(entry.removesuffix(".png") for entry in os.listdir(masks) if entry.endswith(".png"))
            if "images" not in summary or summary | {"masks": len(names), **_rules()} != summary:
                raise SanetError(f"{masks} has {len(names)} masks, but {SUMMARY} tells of others; delete the "
                                 "folder and make the masks again")  # fmt: skip
            if summary["images"] != COUNTS[split] and not allow_subset:
                raise SanetError(f"{masks} is of {summary['images']} images, published {COUNTS[split]}; set "
                                 "data.options to {allow_subset: true} if a part of it is meant")  # fmt: skip
            self.listed[split] = names

    def records(self, split: str) -> Sequence[Record]:
        """The images of a split, by name."""
        images, masks = self.folder / SPLITS[split], self.folder / MASKS / SPLITS[split]
        files = ((name, images / f"{name}.jpg", masks / f"{name}.png") for name in self.listed[split])
        return [Record(name, image if image.is_file() else None, mask) for name, image, mask in files]


def coco_folder(root: Path) -> Path:
    """The folder of the images: below data.root, or data.root.

    Raises:
        SanetError: there is none.
    """
    for folder in (root / "coco", root):
        if all((folder / name).is_dir() for name in SPLITS.values()):
            return folder
    raise SanetError(f"{root} has no coco/ with {' and '.join(SPLITS.values())}; {__name__} says where to get them")


def render_masks(root: Path, progress: bool = True) -> Path:
    """Make the masks of both splits; a split that is done stays, one that was interrupted resumes.

    Args:
        root: what data.root will be.
        progress: show a progress bar.

    Returns:
        The folder with the masks.

    Raises:
        SanetError: images or annotations are missing or damaged.
    """
    folder = coco_folder(Path(root))
    for name in SPLITS.values():
        if not (folder / MASKS / name).is_dir():
            _render_split(folder, name, progress)
    return folder / MASKS


def _render_split(folder: Path, name: str, progress: bool) -> None:
    annotations = folder / "annotations" / f"instances_{name}.json"
    content = _read_json(annotations)
    try:
        classes = classes_by_category(content["categories"])
        images = [(image["id"], image["file_name"], image["height"], image["width"]) for image in content["images"]]
        objects: dict[int, list[Any]] = {number: [] for number, _, _, _ in images}
        for item in content["annotations"]:
            if item["category_id"] in classes:
                objects[item["image_id"]].append(item)
    except KeyError as error:
        raise SanetError(f"{annotations} has no {error}; download the file again") from error
    except TypeError as error:
        raise SanetError(f"{annotations} is not what COCO's files are like ({error}); download it again") from error
    except SanetError as error:
        raise SanetError(f"{annotations}: {error}") from error
    final = folder / MASKS / name
    staging = final.with_name(f"{name}.part")
    staging.mkdir(parents=True, exist_ok=True)
    kept = 0
    for number, file, height, width in tqdm(images, f"masks of {name}", unit=" images", disable=not progress):
        path = staging / f"{Path(file).stem}.png"
        if _is_whole(path, (width, height)):
            kept += 1
            continue
        try:
            mask = render(objects[number], height, width, classes)
        except (KeyError, ValueError) as error:
            problem = f"an annotation has no {error}" if isinstance(error, KeyError) else error
            raise SanetError(f"{annotations}: image {file}: {problem}; download the file again") from error
        if np.count_nonzero((mask > 0) & (mask != LABELS.ignore_index)) > SMALLEST_CONTENT:
            _save(mask, path)
            kept += 1
    summary = {"images": len(images), "masks": kept, **_rules()}
    (staging / SUMMARY).write_text(json.dumps(summary) + "\n", encoding="utf-8")
    staging.rename(final)


def classes_by_category(categories: list[dict[str, Any]]) -> dict[int, int]:
    """VOC's class index by COCO's category id.

    Raises:
        SanetError: one of the 20 is missing.
    """
    ids = {VOC_NAMES.get(category["name"], category["name"]): category["id"] for category in categories}
    missing = [name for name in LABELS.names[1:] if name not in ids]
    if missing:
        raise SanetError(f"no category for {', '.join(missing)}; get COCO's own annotations")
    return {ids[name]: index for index, name in enumerate(LABELS.names) if index != LABELS.background}


def render(objects: list[dict[str, Any]], height: int, width: int, classes: dict[int, int]) -> Mask:
    """(H, W) uint8: the class indices of one image's objects; see the head of this file for the rules.

    Args:
        objects: annotations as COCO has them.
        height: of the image.
        width: of the image.
        classes: class index by category id; other categories are background.

    Raises:
        ValueError: an annotation that is no outline; the message names its id.
    """
    mask = np.zeros((height, width), np.uint8)
    layers = []
    for item in objects:
        if item["category_id"] not in classes:
            continue
        pixels = object_pixels(item, height, width)
        if item.get("iscrowd"):
            mask[pixels] = LABELS.ignore_index
            continue
        count = int(np.count_nonzero(pixels))
        value = classes[item["category_id"]] if count >= TINY_OBJECT else LABELS.ignore_index
        layers.append((-count, item["id"], value, pixels))
    for _, _, value, pixels in sorted(layers, key=lambda layer: layer[:2]):
        mask[pixels] = value
    return mask


def object_pixels(item: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels of one annotation, given as polygons or run lengths, compressed or not.

    Raises:
        ValueError: it is none of these, or has another size.
    """
    outline = item["segmentation"]
    try:
        if isinstance(outline, dict):
            if list(outline["size"]) != [height, width]:
                raise ValueError(f"its size is {outline['size']}")
            counts = outline["counts"]
            runs = masks_of.frPyObjects(outline, height, width) if isinstance(counts, list) else outline
            # That library fills up, or cuts, what is too short or too long; encoded again, it is another outline.
            again = masks_of.encode(np.asfortranarray(masks_of.decode(runs)))["counts"]
            given = runs["counts"]
            if again != (given.encode() if isinstance(given, str) else given):
                raise ValueError("its run lengths do not fill the image")
        else:
            # Two points enclose nothing.
            polygons = [[float(number) for number in polygon] for polygon in outline if len(polygon) >= 6]
            if not all(len(polygon) % 2 == 0 and np.abs(polygon).max() < FARTHEST for polygon in polygons):
                raise ValueError(f"its outline is not of pairs of numbers below {FARTHEST}")
            if not polygons:
                return np.zeros((height, width), np.bool_)
            runs = masks_of.merge(masks_of.frPyObjects(polygons, height, width))
        pixels: NDArray[np.bool_] = masks_of.decode(runs).astype(np.bool_)
    except Exception as error:  # that library fails in its own ways
        raise ValueError(f"annotation {item['id']} of {height}x{width} pixels cannot be drawn ({error})") from error
    return pixels


def _rules() -> dict[str, int]:
    """What decides the masks, kept with them."""
    return {"tiny_object": TINY_OBJECT, "smallest_content": SMALLEST_CONTENT}


def _save(mask: Mask, path: Path) -> None:
    """Write a palette PNG; a file of that name is whole at any time."""
    image = Image.fromarray(mask)
    image.putpalette(LABELS.palette)
    aside = path.with_suffix(".partial")
    image.save(aside, "PNG")
    aside.replace(path)


def _is_whole(path: Path, size: tuple[int, int]) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
            return image.size == size
    except (OSError, SyntaxError, ValueError):
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SanetError(f"{path} does not exist; unpack the archive again, or delete what is beside it") from error
    except ValueError as error:
        raise SanetError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise SanetError(f"{path} is not what COCO's files are like; download it again")
    return content
