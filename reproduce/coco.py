"""COCO 2017 with the classes of VOC, to train on before VOC.

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. Its archives unpack to::

    coco/  train2017/  val2017/  annotations/instances_train2017.json, instances_val2017.json

``data.root`` holds ``coco``, or is it. ``render_masks`` makes palette PNGs of the annotations, once, in
``coco/voc_masks/``:

- The 20 categories that VOC has as well become its classes; all else is background.
- Where objects overlap, the one of fewer pixels lies on top, of equal ones that with the larger annotation id.
- Crowds, which are outlined roughly, are ignored where no object lies on them.
- Objects of fewer than ``TINY_OBJECT`` pixels are ignored, since little but their outline is drawn.
- Pictures with at most ``SMALLEST_CONTENT`` pixels of the 20 classes are left out, as others do that train on them.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sanet.config import DataConfig
from sanet.data.decoding import DataError
from sanet.data.files import FileSource, existing_root
from sanet.data.voc import LABELS, pair_listed, require_count
from sanet.files import replaced
from sanet.structures import SanetError

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
FARTHEST = 100_000  # A corner beyond is no corner of a picture; tracing the way there would take all memory.
MASKS, SUMMARY = "voc_masks", "rendered.json"

Mask = NDArray[np.uint8]


def source(config: DataConfig) -> FileSource:
    """The pictures that have a mask.

    Raises:
        DataError: pictures are missing, the masks are missing, incomplete or made by other rules, or of another
            number of pictures than the published one.
    """
    folder = coco_folder(existing_root(config))
    records = {}
    for split, name in SPLITS.items():
        masks = folder / MASKS / name
        if not masks.is_dir():
            raise DataError(
                f"{masks} is not there, since masks have to be rendered once: run `sanet download coco --root "
                f"{config.root}`"
            )
        summary = _read_json(masks / SUMMARY)
        names = sorted(entry.removesuffix(".png") for entry in os.listdir(masks) if entry.endswith(".png"))
        if "pictures" not in summary or summary | {"masks": len(names), **_rules()} != summary:
            raise DataError(
                f"{masks} has {len(names)} masks, but {SUMMARY} tells of others ({summary}); delete the folder and run "
                f"`sanet download coco --root {config.root}`"
            )
        require_count(str(masks), summary["pictures"], COUNTS[split], config)
        records[split] = pair_listed(names, folder / name, masks)
    return FileSource(LABELS, tuple(records), records.__getitem__, published=True)


def coco_folder(root: Path) -> Path:
    """The folder of the pictures: below data.root, or data.root.

    Raises:
        DataError: there is none.
    """
    for folder in (root / "coco", root):
        if all((folder / name).is_dir() for name in SPLITS.values()):
            return folder
    raise DataError(
        f"{root} has no coco/ with {' and '.join(SPLITS.values())}; data.root is the folder that holds it; "
        f"`sanet download coco --root {root}` gets it"
    )


def render_masks(root: Path, progress: bool = True) -> Path:
    """Make the masks of both splits; a split that is done stays, one that was interrupted goes on.

    Args:
        root: what data.root will be.
        progress: show a progress bar.

    Returns:
        The folder with the masks.

    Raises:
        DataError: pictures or annotations are missing or damaged.
        SanetError: pycocotools is not installed.
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
        pictures = [(image["id"], image["file_name"], image["height"], image["width"]) for image in content["images"]]
        objects: dict[int, list[Any]] = {number: [] for number, _, _, _ in pictures}
        for item in content["annotations"]:
            if item["category_id"] in classes:
                objects[item["image_id"]].append(item)
    except KeyError as error:
        raise DataError(f"{annotations} has no {error}; get the file anew") from error
    except TypeError as error:
        raise DataError(f"{annotations} is not what COCO's files are like ({error}); get it anew") from error
    except DataError as error:
        raise DataError(f"{annotations}: {error}") from error
    final = folder / MASKS / name
    staging = final.with_name(f"{name}.part")
    staging.mkdir(parents=True, exist_ok=True)
    kept = 0
    for number, file, height, width in tqdm(pictures, f"masks of {name}", unit=" pictures", disable=not progress):
        path = staging / f"{Path(file).stem}.png"
        if _is_whole(path, (width, height)):
            kept += 1
            continue
        try:
            mask = render(objects[number], height, width, classes)
        except (KeyError, ValueError) as error:
            problem = f"an annotation has no {error}" if isinstance(error, KeyError) else error
            raise DataError(f"{annotations}: picture {file}: {problem}; get the file anew") from error
        if np.count_nonzero((mask > 0) & (mask != LABELS.ignore_index)) > SMALLEST_CONTENT:
            _save(mask, path)
            kept += 1
    summary = {"pictures": len(pictures), "masks": kept, **_rules()}
    (staging / SUMMARY).write_text(json.dumps(summary) + "\n", encoding="utf-8")
    staging.rename(final)


def classes_by_category(categories: list[dict[str, Any]]) -> dict[int, int]:
    """VOC's class index by COCO's category id.

    Raises:
        DataError: one of the 20 is missing.
    """
    ids = {VOC_NAMES.get(category["name"], category["name"]): category["id"] for category in categories}
    missing = [name for name in LABELS.names[1:] if name not in ids]
    if missing:
        raise DataError(f"no category for {', '.join(missing)}; get COCO's own annotations")
    return {ids[name]: index for index, name in enumerate(LABELS.names) if index != LABELS.background}


def render(objects: list[dict[str, Any]], height: int, width: int, classes: dict[int, int]) -> Mask:
    """(H, W) uint8: the class indices of one picture's objects; see the head of this file for the rules.

    Args:
        objects: annotations as COCO has them.
        height: of the picture.
        width: of the picture.
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
            runs = np.array(counts if isinstance(counts, list) else uncompressed(counts), np.int64)
            if runs.sum() != height * width or (runs < 0).any():
                raise ValueError("its run lengths do not fill the picture")
            return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
        # Two points enclose nothing.
        polygons = [[float(number) for number in polygon] for polygon in outline if len(polygon) >= 6]
        if not all(len(polygon) % 2 == 0 and np.abs(polygon).max() < FARTHEST for polygon in polygons):
            raise ValueError(f"its outline is not of pairs of numbers below {FARTHEST}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"annotation {item['id']} of {height}x{width} pixels cannot be drawn ({error})") from error
    if not polygons:
        return np.zeros((height, width), np.bool_)
    tools = _tools()
    filled: NDArray[np.bool_] = tools.decode(tools.merge(tools.frPyObjects(polygons, height, width))).astype(np.bool_)
    return filled


def uncompressed(text: str | bytes) -> list[int]:
    """The run lengths that COCO's text form stands for.

    Numbers are in groups of 5 bits, the lowest first; from the fourth on they are differences to the last but one.

    Raises:
        ValueError: the text ends within a number.
    """
    codes = [(ord(sign) if isinstance(sign, str) else sign) - 48 for sign in text]
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run lengths end within a number")
    return runs


def _rules() -> dict[str, int]:
    """What decides the masks, kept with them."""
    return {"tiny_object": TINY_OBJECT, "smallest_content": SMALLEST_CONTENT}


def _save(mask: Mask, path: Path) -> None:
    """Write a palette PNG; a file of that name is whole at any time."""
    picture = Image.fromarray(mask)
    picture.putpalette(LABELS.palette)
    with replaced(path) as aside:
        picture.save(aside, "PNG")


def _is_whole(path: Path, size: tuple[int, int]) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.size == size
    except (OSError, SyntaxError, ValueError):
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; unpack the archive anew, or delete what is beside it") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); get it anew") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not what COCO's files are like; get it anew")
    return content


def _tools() -> Any:
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise SanetError(
            f'COCO\'s masks need an extra: pip install "sanet-segmentation[datasets]" ({error})'
        ) from error
