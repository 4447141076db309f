"""How well the looks of images tell copies from other images, and how long they take.

python benchmarks/duplicates.py OUTPUT.json CAMVID VOC   # folders in the SegNet layout, and in VOC's, with three lists

Altered copies of every image of VOC's val that are found, by the number of bits that may differ; pairs of images of
CamVid that are of other films, and are found none the less; images of one split that look like one of another.
"""

import json
import sys
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from sanet.data.decoding import read_image
from sanet.data.duplicates import BITS, ODD_COLUMNS, look_of, near_duplicates

LIMITS = (2, 4, 6, 8, 10, 12)
MIRROR = int.from_bytes(np.packbits(ODD_COLUMNS).tobytes(), "big")
SPEED_IMAGES = (8000, 2000)


def main(output: str, camvid: str, voc: str) -> None:
    """Measure, and write."""
    films = {split: sorted(Path(camvid, split).glob("*.png")) for split in ("train", "val", "test")}
    lists = {path.stem: path.read_text().split() for path in Path(voc, "ImageSets", "Segmentation").glob("*.txt")}
    found = {"bits": BITS, "limits": LIMITS, "copies": copies(Path(voc, "JPEGImages"), lists["val"])}
    looks = {split: {path.stem: of(path) for path in paths} for split, paths in films.items()}
    found["camvid"] = splits(looks) | film_pairs(looks)
    for train in ("train", "trainaug"):
        pictures = {
            split: {name: of(Path(voc, "JPEGImages", f"{name}.jpg")) for name in lists[split]}
            for split in (train, "val")
        }
        found[f"voc_animals {train}"] = splits(pictures)
    found["seconds"] = seconds(Path(voc, "JPEGImages", f"{lists['val'][0]}.jpg"))
    Path(output).write_text(json.dumps(found, indent=1) + "\n")


def of(path: Path) -> int:
    """The look of a file; a flat image has none, of which there are none here."""
    look = look_of(read_image(path))
    if look is None:
        raise ValueError(f"{path} is flat")
    return look


def splits(looks: dict[str, dict[str, int]]) -> dict[str, object]:
    """Images of the smaller split that look like one of the other by each limit, and the nearest pairs."""
    pairs = near_duplicates(looks, max(LIMITS))
    names = dict.fromkeys(f"{pair.split} like {pair.other_split}" for pair in pairs)
    counted = {
        name: [
            sum(f"{p.split} like {p.other_split}" == name and p.distance <= limit for p in pairs) for limit in LIMITS
        ]
        for name in names
    }
    nearest = sorted(pairs, key=lambda pair: pair.distance)[:20]
    return {"images": {split: len(some) for split, some in looks.items()}, "alike": counted, "nearest": nearest}


def film_pairs(looks: dict[str, dict[str, int]]) -> dict[str, object]:
    """Pairs of frames by the number of bits that differ: of other films, and a second apart in one."""
    every = {name: look for some in looks.values() for name, look in some.items()}
    by_film: dict[str, dict[str, int]] = {}
    for name in sorted(every):
        by_film.setdefault(name.partition("_")[0], {})[name] = every[name]
    other = [
        bits(one ^ two)
        for film, some in by_film.items()
        for name, frames in by_film.items()
        if film < name
        for one in some.values()
        for two in frames.values()
    ]
    second = [bits(one ^ two) for some in by_film.values() for one, two in pairwise(some.values())]
    return {
        "pairs": {
            name: {"pairs": len(some), "within": [sum(bit <= limit for bit in some) for limit in LIMITS]}
            for name, some in (("of other films", other), ("following each other", second))
        }
    }


def bits(value: int) -> int:
    """How many there are, of the difference to the image or to its mirror image."""
    return min(value.bit_count(), (value ^ MIRROR).bit_count())


def copies(folder: Path, names: list[str]) -> dict[str, list[float]]:
    """Share of altered copies that are found by each limit."""
    images = [Image.open(folder / f"{name}.jpg").convert("RGB") for name in names]
    shares = {}
    for name, change in CHANGES.items():
        distances = []
        for image in images:
            one, two = (look_of(np.asarray(some)) for some in (image, change(image)))
            pairs = near_duplicates({"one": {"": one or 0}, "two": {"": two or 0}}, BITS)
            distances.append(pairs[0].distance)
        shares[name] = [round(sum(distance <= limit for distance in distances) / len(distances), 4) for limit in LIMITS]
    return shares


def seconds(path: Path) -> dict[str, float]:
    """Of one image the time to decode it and to find its look, in ms; of 10,000 images that to compare them, in s."""
    pixels, rng = read_image(path), np.random.default_rng(0)
    times = {"decode_ms": 1000 * best(lambda: read_image(path)), "look_ms": 1000 * best(lambda: look_of(pixels))}
    names = {
        split: {str(i): int(v) for i, v in enumerate(rng.integers(0, 2**63, count, np.uint64) << np.uint64(1))}
        for split, count in zip(("train", "val"), SPEED_IMAGES, strict=True)
    }
    return times | {"compare_10000_s": best(lambda: near_duplicates(names), 3)}


def best(work: Callable[[], object], times: int = 50) -> float:
    """Seconds of the fastest of some."""
    found = []
    for _ in range(times):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    return min(found)


def _jpeg(image: Image.Image) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


def _cut(share: float) -> Callable[[Image.Image], Image.Image]:
    def cut(image: Image.Image) -> Image.Image:
        x, y = int(image.width * share), int(image.height * share)
        return image.crop((x, y, image.width - x, image.height - y))

    return cut


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    noise: NDArray[np.float64] = np.random.default_rng(0).normal(0, 20, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 30": _jpeg,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "640x640": lambda image: image.resize((640, 640)),
    "30 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "30 % less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "noise of 20": _noisy,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "2 % cut off each side": _cut(0.02),
    "5 % cut off each side": _cut(0.05),
    "10 % cut off each side": _cut(0.1),
    "rotated by 5 degrees": lambda image: image.rotate(5),
}

if __name__ == "__main__":
    main(*sys.argv[1:])
