"""Results on the test images of PASCAL VOC 2012, whose masks only the organisers' server has, in the form it takes.

The server (http://host.robots.ox.ac.uk:8080) scores an archive of::

    results/VOC2012/Segmentation/comp6_test_cls/NAME.png

one palette PNG of class indices 0 to 20 for each image of ``test.txt``, as large as the image.
"""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from sanet import DataConfig, InferenceConfig, LabelSet, Predictor, Record, SanetError, data_source

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# comp5: trained on the data of PASCAL VOC only; comp6: on other data as well, as a backbone's weights are.
Competition = Literal["comp5", "comp6"]
COMPETITIONS: tuple[Competition, ...] = ("comp5", "comp6")
SEGMENTATION = "results/VOC2012/Segmentation"
ARCHIVE, ORIGIN = "results.tgz", "origin.json"
NAMED = 20


def submit(
    model: str | Path,
    root: str | Path,
    output: str | Path,
    competition: Competition = "comp6",
    inference: InferenceConfig = InferenceConfig(),
    device: str | None = None,
) -> Path:
    """Label the test images of VOC 2012, and pack the results as the server wants them.

    A call that was stopped resumes: images that are labelled already are kept.

    Args:
        model: a model directory or an exported file, of the classes of VOC in their order.
        root: folder with ``VOCdevkit``.
        output: folder for ``results/``, ``results.tgz``, which goes to the server, and ``origin.json``, which does not.
        competition: "comp5" if the model was trained on the data of VOC 2012 only, "comp6" if on other data as well,
            as with a backbone or masks from elsewhere (ImageNet, SBD, COCO).
        inference: inference settings.
        device: such as "cpu" or "cuda".

    Returns:
        The archive.

    Raises:
        SanetError: there are no test images, one cannot be read, the model's classes are not those of VOC, the folder
            has the results of another model, or what was written is not what the server takes.
    """
    source = data_source(DataConfig("voc", str(root)))
    if "test" not in source.splits:
        raise SanetError(f"{root} has no test images of VOC 2012; unpack their archive into the same folder")
    records = source.records("test")
    missing = [record.name for record in records if record.image is None]
    if missing:
        raise SanetError(f"test lists {len(missing)} images that do not exist, such as {missing[0]}; add them")
    predictor = Predictor(model, device, inference)
    _require_voc(predictor.labels)
    folder = Path(output)
    place = folder / SEGMENTATION / f"{competition}_test_cls"
    _require_origin(folder, {"model": str(Path(model).resolve()), "inference": asdict(inference)})
    place.mkdir(parents=True, exist_ok=True)
    for record in tqdm(records, "submit", unit=" images"):
        file = place / f"{record.name}.png"
        if not file.exists():
            _label(predictor, record, file)
    return pack(folder, competition, records)


def pack(folder: Path, competition: Competition, records: Sequence[Record]) -> Path:
    """Write the archive of the results in a folder, if the server would take them; equal results give equal bytes."""
    place = folder / SEGMENTATION / f"{competition}_test_cls"
    aside = folder / f".{ARCHIVE}.partial"
    with (
        aside.open("wb") as stream,
        gzip.GzipFile("", "wb", mtime=0, fileobj=stream) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted(place.glob("*.png")):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    faults = check_submission(aside, records)
    if faults:
        aside.unlink()
        more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
        raise SanetError("\n".join(["the server would not take these results:", *faults[:NAMED], *more]))
    return aside.replace(folder / ARCHIVE)


def check_submission(path: str | Path, records: Sequence[Record]) -> list[str]:
    """Everything for which the server would refuse an archive, or score it wrongly; none where all is well.

    Args:
        path: the archive.
        records: the test images.
    """
    expected = {record.name: record for record in records}
    faults: list[str] = []
    found: dict[str, set[str]] = {}
    folders = [f"{SEGMENTATION}/{competition}_test_cls" for competition in COMPETITIONS]
    try:
        for name, content in _files(Path(path)):
            folder, _, file = name.rpartition("/")
            stem = file.removesuffix(".png")
            if folder not in folders:
                faults.append(f"{name}: lies in no {' or '.join(folders)}")
            elif content is None:
                faults.append(f"{name}: is no plain file")
            elif stem == file or stem not in expected:
                faults.append(f"{name}: is no NAME.png of an image in the list")
            elif stem in found.setdefault(folder, set()):
                faults.append(f"{name}: exists twice")
            else:
                found[folder].add(stem)
                faults += [f"{name}: {fault}" for fault in _faults(content, expected[stem])]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        return [f"{path} cannot be read: {error}"]
    if not found:
        faults.append(f"{path}: holds no results in {' or '.join(folders)}")
    for folder, names in found.items():
        faults += [f"{folder}/{name}.png: is missing" for name in expected if name not in names]
    return faults


def _require_voc(labels: LabelSet) -> None:
    if labels.names != VOC_CLASSES:
        raise SanetError(
            f"the model's classes are {', '.join(labels.names)}; the server wants those of VOC in their order"
        )


def _require_origin(folder: Path, origin: dict[str, object]) -> None:
    """Keep which model labels into a folder; another one is refused."""
    path, text = folder / ORIGIN, json.dumps(origin, indent=1, sort_keys=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SanetError(f"{folder} has results of another model or of other settings ({path}); choose another output")
    if not path.exists() and folder.exists() and any(folder.iterdir()):
        raise SanetError(f"{folder} is not empty; choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _label(predictor: Predictor, record: Record, file: Path) -> None:
    assert record.image is not None
    try:
        with Image.open(record.image) as opened:
            image = Image.fromarray(np.asarray(predictor(opened.convert("RGB")), np.uint8))
    except (OSError, SyntaxError) as error:
        raise SanetError(f"{record.image} cannot be read: {error}") from error
    image.putpalette(predictor.labels.palette)
    aside = file.with_suffix(".partial")
    image.save(aside, "PNG")
    aside.replace(file)


def _files(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Name and content of everything in an archive; None for what is no plain file."""
    with gzip.open(path) as packed:
        while packed.read(1 << 20):  # to the end, where a file that was cut off shows
            pass
    with tarfile.open(path, "r:gz") as archive:
        for entry in archive:
            if not entry.isdir():
                content = archive.extractfile(entry) if entry.isfile() else None
                yield entry.name.removeprefix("./"), content.read() if content else None


def _faults(content: bytes, record: Record) -> list[str]:
    """What is wrong with one image of class indices."""
    assert record.image is not None
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as mask, Image.open(record.image) as image:
            kind, values, size = f"{mask.format} of mode {mask.mode}", np.array(mask), image.size
    except (OSError, SyntaxError, ValueError) as error:
        return [f"cannot be read: {error}"]
    faults = []
    if kind != "PNG of mode P":
        faults.append(f"is a {kind}, not a palette PNG (mode P)")
    if values.shape != (size[1], size[0]):
        faults.append(f"is {values.shape[1]}x{values.shape[0]}, its image {size[0]}x{size[1]}")
    wrong = sorted({int(value) for value in np.unique(values) if value >= len(VOC_CLASSES)})
    if wrong and values.ndim == 2:
        faults.append(f"has the values {', '.join(map(str, wrong[:6]))}; classes are 0 to {len(VOC_CLASSES) - 1}")
    return faults
