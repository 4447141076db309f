"""Scores of masks, whoever predicted them: without a model, by the same counts as those of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanet.config import DataConfig
from sanet.data.archives import unpacked
from sanet.data.catalog import data_source, recognised
from sanet.data.decoding import DataError, labels_of, load_mask, read_labels, shape_text
from sanet.data.folder import MasksAlone
from sanet.data.layout import has_masks, predictions_in
from sanet.data.source import Record, SegmentationDataset, Source, names_text, records_of
from sanet.data.values import MaskCoding
from sanet.evaluation.copying import copy_nearest
from sanet.evaluation.evaluate import evaluate_dataset, files_in, written_with
from sanet.evaluation.metrics import create_metrics
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.results import Evaluation
from sanet.files import require_own, require_writable
from sanet.structures import LabelSet, Sample, SanetError, UsageError, say

ALL = "all"  # the split where none is chosen
COPYING_SECONDS = 10.0
RANGES = 256  # values of a coding that names ranges of grey, which a lossy format leaves as they are


def score(
    predictions: str | Path,
    truth: str | Path | None = None,
    data: DataConfig = DataConfig(),
    split: str | None = None,
    output: str | Path | None = None,
    metrics: Mapping[str, Any] | None = None,
    allow_subset: bool = False,
    indices: bool | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score masks against the ground truth; the outcome is that of ``evaluate``.

    Args:
        predictions: folder, or archive, of masks; each has the name of its image, and its size.
        truth: folder, or archive, of a dataset, or of masks alone; by default data.root.
        data: the dataset.
        split: the split to score; by default all images.
        output: folder for ``scores.json``, ``image_counts.npz`` and ``report.html``; nothing is written without it.
        metrics: further metrics; see ``evaluate``.
        allow_subset: leave out images that have no prediction, instead of refusing.
        indices: the predictions hold class indices, as `sanet predict` writes them; false: the values, or colours, of
            the ground truth's masks. By default what all of them fit.
        progress: show a progress bar.

    Raises:
        DataError: the ground truth cannot be read; or a prediction is missing, is of no image, has another size than
            the ground truth, a value that is no class, or no class for a labelled pixel.
        UsageError: no such split or metric, predictions that could be meant in two ways, nothing can be written in
            ``output``, or a file there is not ours.
    """
    wanted = create_metrics(metrics or {})
    if output is not None:
        require_own(*files_in(Path(output)))
    place = truth if truth is not None else data.root
    if place is None and data.name == "auto":
        raise UsageError("name the ground truth behind the predictions: a folder or an archive, or --data.*")
    with unpacked(predictions) as folder, unpacked(place or folder) as root:
        source = _truth(replace(data, root=str(root)) if place is not None else data)
        for note in source.notes:
            say(note)
        parts = [split] if split else [part for part in source.splits if part not in source.unlabelled]
        records = {part: records_of(source, part) for part in parts}
        files, missing = _paired(folder, records, source.root, allow_subset)
        dataset = SegmentationDataset(source, [one for all in records.values() for one in all if one.name in files])
        dataset.source = source.reading(source.images.without_range())
        if output is not None:
            require_writable(Path(output))
        settings = replace(source.settings or data, allow_subset=False)
        protocol = Protocol.of(settings, split or ALL, dataset.names, dataset.labels, None)
        protocol = replace(protocol, allow_subset=data.allow_subset or missing > 0)
        label = _Predictions(files, dataset.labels, _coding(files.values(), source, indices))
        evaluation = evaluate_dataset(label, dataset, protocol, progress, 0, wanted)
        if isinstance(source, MasksAlone):
            evaluation = replace(evaluation, protocol=replace(evaluation.protocol, images_sha256=None))
        facts = {"predictions": str(predictions), **_copying(source, split, dataset)}
        return written_with(facts, evaluation, output, [])


def _truth(data: DataConfig) -> Source:
    """A dataset; of a folder without images its masks alone."""
    if (
        data.root
        and data.name in ("auto", "folder")
        and recognised(data.root) == "folder"
        and not has_masks(Path(data.root))
    ):
        return MasksAlone(data)
    return data_source(data)


def _paired(
    folder: Path, records: Mapping[str, Sequence[Record]], root: Path | None, allow_subset: bool
) -> tuple[dict[str, Path], int]:
    """The prediction of every image by its name, and how many have none."""
    found, spare = predictions_in(folder, records, root)
    names = [record.name for all in records.values() for record in all]
    missing = [name for name in names if not found.get(name)]
    if spare or not found:
        first = names_text([str(path.relative_to(folder)) for path in spare])
        what = f"{len(spare)} predictions are of no image, such as {first}" if spare else "there is no prediction"
        raise DataError(
            f"{folder}: {what}; images are {names_text(names)}: give a prediction the name of its image, score another "
            "--split, or remove it"
        )
    for name, paths in found.items():
        if len(paths) > 1:
            raise DataError(f"{name} has {len(paths)} predictions, {names_text([*map(str, paths)])}; keep one of them")
    if missing and not allow_subset:
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} images have no prediction: {names_text(missing)}; add them, "
            "choose a --split, or leave these images out with --allow_subset true"
        )
    return {name: paths[0] for name, paths in found.items()}, len(missing)


def _coding(files: Iterable[Path], source: Source, indices: bool | None) -> MaskCoding:
    """How predictions hold classes: as the masks of the ground truth, or as indices; whichever all of them fit."""
    given, plain = source.coding, MaskCoding()
    if indices or given.format == "pages" or given.variable:
        return plain
    if indices is False or not given.table:
        return given
    fits, same = {given: True, plain: True}, True
    for path in files:
        read = []
        for coding in fits:
            try:
                read.append(read_labels(path, source.labels, coding))
            except DataError:
                fits[coding] = False
        same = same and len(read) == 2 and bool((read[0] == read[1]).all())
    if all(fits.values()) and not same:
        raise UsageError(
            "the predictions could hold class indices or the values of the ground truth; say which: --indices true or "
            "--indices false"
        )
    if fits[plain] and not fits[given]:
        say("the predictions hold class indices, not the values of the ground truth's masks")
        return plain
    return given


class _Predictions:
    """Files as a function from images to labels (H, W); no confidence is known."""

    def __init__(self, files: Mapping[str, Path], labels: LabelSet, coding: MaskCoding) -> None:
        self.files, self.labels, self.coding = files, labels, coding

    def __call__(self, sample: Sample) -> tuple[Tensor, None]:
        path, ignored = self.files[sample.name], self.labels.ignore_index
        try:
            stored = load_mask(path, self.coding)
            if stored.lossy and len(self.coding.table) < RANGES:
                raise DataError(f"{path} is in a lossy format, which changes classes; predict again, and save PNG")
            found = torch.from_numpy(labels_of(stored, self.labels, self.coding, path))
        except DataError as error:
            raise DataError(
                f"prediction {error}; the classes are {names_text(self.labels.names)}: name all with --data.classes or "
                "--data.values"
            ) from error
        if found.shape != sample.mask.shape:
            raise DataError(
                f"prediction {path} is {shape_text(found)}, but its ground truth is {shape_text(sample.mask)}; save "
                "predictions at the size of the ground truth"
            )
        nothing = int(((found == ignored) & (sample.mask != ignored)).sum())
        if nothing:
            raise DataError(
                f"prediction {path} has the ignore value on {nothing} labelled pixels; predict a class for each"
            )
        return found, None


def _copying(source: Source, split: str | None, dataset: SegmentationDataset) -> dict[str, Any]:
    """What copying masks of the training images scores on a split, printed; see ``copy_nearest``."""
    if split in (None, "train") or "train" not in source.splits or not source.reads_files:
        return {}
    try:
        copied = copy_nearest(SegmentationDataset(source, records_of(source, "train")), dataset, COPYING_SECONDS)
    except SanetError as error:
        say(f"what copying training masks scores is not known: {error}")
        return {}
    say(copied)
    return copied.facts
