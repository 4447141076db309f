"""Results on the test pictures of PASCAL VOC 2012, whose masks only the organisers' server has, in the form it takes.

The server (http://host.robots.ox.ac.uk:8080) scores an archive of::

    results/VOC2012/Segmentation/comp6_test_cls/NAME.png

one palette PNG of class indices 0 to 20 for each picture of ``test.txt``, as large as the picture.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from sanet.config import Competition, DataConfig, InferenceConfig, plain
from sanet.data.catalog import data_source
from sanet.data.decoding import DataError, read_image
from sanet.data.source import Record, names_text
from sanet.data.voc import LABELS
from sanet.evaluation.evaluate import require_same_classes
from sanet.files import append, in_the_way, refuse, replaced, require_own, require_writable, sum_of, written
from sanet.inference.exported import is_exported
from sanet.inference.predictor import Predictor
from sanet.models.networks import SegmentationModel, load_model
from sanet.structures import SanetError, UsageError, choose, default_colors

# Of results and their pictures; no other decoder is tried.
FORMATS = ("PNG", "JPEG")
ORIGIN = {"model", "views", "competition"}
RESULTS, SEGMENTATION = "results", "results/VOC2012/Segmentation"
ARCHIVE, NOTE = "results.tgz", "submission.jsonl"
PALETTE = [value for color in default_colors(256) for value in color]
NAMED = 20


def submit(
    model: str | Path | SegmentationModel,
    data: DataConfig,
    output: str | Path,
    competition: Competition = "comp6",
    views: InferenceConfig = InferenceConfig(),
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Label the test pictures of VOC 2012, and pack the results as the server wants them.

    A run that was stopped goes on where it was: what ``submission.jsonl`` says that the same model has written with
    the same views is kept, everything else is labelled anew.

    Args:
        model: a model directory, an exported file, or a model, of the classes of VOC in their order.
        data: "voc" or "voc_aug", whole.
        output: folder for ``results/``, ``results.tgz``, which goes to the server, and ``submission.jsonl``, which
            does not.
        competition: "comp5" if the model was trained on the data of VOC 2012 only, "comp6" if on other data as well,
            as with a backbone or masks from elsewhere (ImageNet, SBD, COCO).
        views: how to look at a picture: in which sizes, mirrored or not, and from where on in windows.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        progress: show a progress bar.

    Returns:
        The archive.

    Raises:
        UsageError: another data set or competition, no test pictures, or somebody's file is in the way.
        DataError: pictures that cannot be read; the others are labelled, but there is no archive.
        SanetError: the model's classes are not those of VOC, or what was written is not what the server takes.
    """
    choose("competition", competition, get_args(Competition))
    records = _test_pictures(data)
    folder, place = Path(output), Path(output) / SEGMENTATION / f"{competition}_test_cls"
    _require_own(folder, [place / f"{record.name}.png" for record in records])
    network = model if isinstance(model, SegmentationModel) or is_exported(model) else load_model(model)
    predictor = Predictor(network, device, views)
    require_same_classes(predictor.labels, LABELS)
    require_writable(place)
    (folder / ARCHIVE).unlink(missing_ok=True)  # of an earlier run: no archive is better than another model's
    origin = {"model": _fingerprint(network), "views": plain(asdict(predictor.views)), "competition": competition}
    failures = []
    note = _Note(folder / NOTE, origin)
    for record in tqdm(records, "submit", unit=" pictures", disable=not progress):
        file = place / f"{record.name}.png"
        if note.holds(file):
            continue
        try:
            _label(predictor, record, file, folder)
        except DataError as error:
            file.unlink(missing_ok=True)
            failures.append(str(error))
        else:
            note.add(file)
    if failures:
        raise DataError("\n".join([f"{len(failures)} pictures cannot be labelled; no archive is made:", *failures]))
    return _pack(folder, place, records)


def check_submission(path: str | Path, records: Sequence[Record]) -> list[str]:
    """Everything for which the server would refuse results, or score them wrongly.

    Args:
        path: the archive, or the folder that holds ``results/``.
        records: the test pictures.

    Returns:
        One message for every fault; none where all is well.
    """
    expected = {record.name: record for record in records}
    faults: list[str] = []
    found: dict[str, set[str]] = {}
    folders = [f"{SEGMENTATION}/{competition}_test_cls" for competition in get_args(Competition)]
    try:
        for name, content in _files(Path(path)):
            folder, _, file = name.rpartition("/")
            if folder not in folders:
                faults.append(f"{name}: lies in no {' or '.join(folders)}")
            elif content is None:
                faults.append(f"{name}: is no plain file")
            elif not file.endswith(".png") or file.removesuffix(".png") not in expected:
                faults.append(f"{name}: is no NAME.png of a picture in the list")
            elif file.removesuffix(".png") in found.setdefault(folder, set()):
                faults.append(f"{name}: is there twice")
            else:
                found[folder].add(file.removesuffix(".png"))
                faults += [f"{name}: {fault}" for fault in _faults(content, expected[file.removesuffix(".png")])]
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        return [f"{path} cannot be read: {error}"]
    if not found:
        faults.append(f"{path}: holds no results in {' or '.join(folders)}")
    for folder, names in found.items():
        faults += [f"{folder}/{name}.png: is missing" for name in expected if name not in names]
    return faults


def _test_pictures(data: DataConfig) -> list[Record]:
    if data.name not in ("voc", "voc_aug"):
        raise UsageError(f"data.name {data.name!r}: the server takes results on voc only; set it to voc")
    if data.allow_subset:
        raise UsageError("data.allow_subset: the server takes results on all test pictures only; leave it out")
    source = data_source(data)
    if "test" not in source.splits:
        raise UsageError(f"{data.root} has no test pictures of VOC 2012; unpack their archive into the same folder")
    records = [*source.records("test")]
    missing = [record.name for record in records if record.image is None]
    if missing:
        raise DataError(f"test lists {len(missing)} images that do not exist, {names_text(missing)}; add them")
    return records


def _label(predictor: Predictor, record: Record, file: Path, root: Path) -> None:
    assert record.image is not None
    image = Image.fromarray(predictor(read_image(record.image)))
    image.putpalette(PALETTE)
    with written(file, root) as aside:
        image.save(aside, "PNG")


class _Note:
    """What has been labelled by which model: a line of JSON for the origin, then one for every file.

    Args:
        path: of the note. If it tells of another origin, it is begun anew.
        origin: model, views and competition.
    """

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        self.digests: dict[str, str] = {}
        lines = list(_json_lines(path))
        if lines and lines[0] == origin:
            self.digests = {line["name"]: line["sha256"] for line in lines[1:]}
        self.path = path
        with replaced(path) as aside:
            aside.write_text("".join(f"{json.dumps(line)}\n" for line in [origin, *self._entries()]), encoding="utf-8")

    def _entries(self) -> list[dict[str, str]]:
        return [{"name": name, "sha256": digest} for name, digest in self.digests.items()]

    def holds(self, file: Path) -> bool:
        """Whether the file is as it was written."""
        return file.is_file() and self.digests.get(file.name) == sum_of(file)

    def add(self, file: Path) -> None:
        """A file that is whole."""
        append(self.path, json.dumps({"name": file.name, "sha256": sum_of(file)}))


def _require_own(folder: Path, files: Sequence[Path]) -> None:
    """Raise a UsageError where somebody's file would be replaced; the note, which grows, is known by its first line."""
    require_own(folder / ARCHIVE, *files, root=folder)
    found = in_the_way(folder / NOTE)
    if found and not (found.is_file() and set(next(_json_lines(found), ())) >= ORIGIN):
        raise refuse(found)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Up to the first line that is torn."""
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
    except (FileNotFoundError, ValueError):
        return


def _fingerprint(network: str | Path | SegmentationModel) -> str:
    """SHA-256 of an exported file, or of what a network is made of and its weights."""
    if not isinstance(network, SegmentationModel):
        return sha256(Path(network).read_bytes()).hexdigest()
    digest = sha256(re.sub(" at 0x[0-9a-f]+", "", repr(network)).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _pack(folder: Path, place: Path, records: Sequence[Record]) -> Path:
    """Write the archive aside, check it, and give it its name; the same results make the same bytes."""
    with written(folder / ARCHIVE) as aside:
        _archive(aside, folder, place, records)
        faults = check_submission(aside, records)
        if faults:
            more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
            raise SanetError("\n".join(["the server would not take these results:", *faults[:NAMED], *more]))
    return folder / ARCHIVE


def _archive(path: Path, folder: Path, place: Path, records: Sequence[Record]) -> None:
    with (
        path.open("wb") as stream,
        gzip.GzipFile("", "wb", mtime=0, fileobj=stream) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(record.name for record in records):
            content = (place / f"{name}.png").read_bytes()
            entry = tarfile.TarInfo(f"{place.relative_to(folder).as_posix()}/{name}.png")
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))


def _files(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Name and content of everything in an archive, or in ``results/`` of a folder; None for what is no plain file."""
    if path.is_dir():
        for file in sorted((path / RESULTS).rglob("*")):
            if file.is_symlink() or not file.is_dir():
                yield file.relative_to(path).as_posix(), file.read_bytes() if file.is_file() else None
        return
    with gzip.open(path) as packed:
        while packed.read(1 << 20):  # to the end, where a file that was cut off shows
            pass
    with tarfile.open(path, "r:gz") as archive:
        for entry in archive:
            if not entry.isdir():
                content = archive.extractfile(entry) if entry.isfile() else None
                yield entry.name.removeprefix("./"), content.read() if content else None


def _faults(content: bytes, record: Record) -> list[str]:
    """What is wrong with one picture of class indices."""
    assert record.image is not None
    try:
        with (
            Image.open(BytesIO(content), formats=FORMATS) as image,
            Image.open(record.image, formats=FORMATS) as picture,
        ):
            kind, values, size = f"{image.format} of mode {image.mode}", np.array(image), picture.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return [f"cannot be read: {error}"]
    faults = []
    if kind != "PNG of mode P":
        faults.append(f"is a {kind}, not a palette PNG (mode P)")
    if values.shape != (size[1], size[0]):
        faults.append(f"is {values.shape[1]}x{values.shape[0]}, its picture {size[0]}x{size[1]}")
    wrong = sorted({int(value) for value in np.unique(values) if value >= len(LABELS)})
    if wrong and values.ndim == 2:
        faults.append(f"has the values {', '.join(map(str, wrong[:6]))}; classes are 0 to {len(LABELS) - 1}")
    return faults
