"""Results side by side, if they can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite, nan
from pathlib import Path

from sanet.evaluation.confusion import SCORE_NAMES
from sanet.evaluation.measures import MEASURES, table_of
from sanet.evaluation.report import ABSENT_RULE, iou_text
from sanet.evaluation.results import Evaluation, read_scores
from sanet.structures import SanetError, UsageError
from sanet.tables import MISSING, percent, text_table


def compare(paths: Sequence[str | Path]) -> str:
    """A table for the terminal: IoU by class and the means of all results, in per cent, one column each.

    Two results or more also show how the images fare one by one, each against the same image of the first result.
    ``paths`` are files ``scores.json``, or folders that hold one.

    Raises:
        UsageError: no paths.
        SanetError: a file that does not exist, or ground truth that differs; every difference is named.
    """
    if not paths:
        raise UsageError("name the results to compare: files scores.json, or folders that hold one")
    results = [read_scores(path) for path in paths]
    first, *others = results
    differences = [
        f"  {paths[0]} against {path}: {difference}"
        for path, result in zip(paths, results, strict=True)
        for difference in first.protocol.differences(result.protocol)
    ]
    if differences:
        raise SanetError("\n".join(["scores against different ground truth cannot be compared:", *differences]))
    numbers = [f"[{index + 1}]" for index in range(len(results))]
    rows = [[name, *(iou_text(result.scores.class_iou[name]) for result in results)] for name in first.labels.names]
    for key, name in SCORE_NAMES.items():
        if getattr(first.scores, key) is not None:
            rows.append([name, *(percent(getattr(result.scores, key)) for result in results)])
    rows.append(["mean of the images' mIoU", *(percent(_mean(result.image_miou.values())) for result in results)])
    if others:
        rows += _paired(first, others)
    protocol = first.protocol
    data = f"a part of {protocol.data}" if protocol.allow_subset else protocol.data
    named = [
        f"{number} {path} ({result.protocol.inference_text()})"
        for number, path, result in zip(numbers, paths, results, strict=True)
    ]
    truth = f"{data} {protocol.split}, {protocol.images} images; SHA-256 of the ground truth {protocol.digest[:12]}"
    tables = [text_table(["IoU in per cent", *numbers], rows), *_differences(first, others, numbers)]
    return "\n".join([*named, truth, "", *tables, ABSENT_RULE])


def _differences(first: Evaluation, others: Sequence[Evaluation], numbers: Sequence[str]) -> list[str]:
    """How far every score of the others is from the first one's, on the same resamples of the images."""
    if not others or any(result.image_sums is None for result in (first, *others)):
        return []
    known = [(result.image_counts, first.image_counts) for result in others]
    tables = [table_of(pair, first.labels, first.groups) for pair in known]
    rows = [
        (f"IoU of {name}", *(table.classes["iou"][index].text("+") for table in tables))
        for index, name in enumerate(first.labels.names)
    ]
    for key, title in SCORE_NAMES.items():
        if key in tables[0].means:
            rows.append((title, *(table.means[key].text("+") for table in tables)))
    for key, measure in MEASURES.items():
        if key not in ("iou", "recall") and all(key in table.classes for table in tables):
            rows.append((f"mean {measure.title}", *(table.classes[key][-1].text("+") for table in tables)))
    header = ("difference from [1], 95 % interval", *numbers[1:])
    return ["", text_table(header, rows), "Intervals are of the same resamples of the images for both."]


def _paired(first: Evaluation, others: Sequence[Evaluation]) -> list[list[str]]:
    """Mean difference of the images' mIoU from the first result, and how many are better, the same or worse."""
    means, counts = [MISSING], [MISSING]
    for result in others:
        changes = [value - first.image_miou[name] for name, value in result.image_miou.items()]
        changes = [change for change in changes if isfinite(change)]
        means.append(f"{100 * _mean(changes):+.1f}" if changes else MISSING)
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        counts.append(f"{better}/{len(changes) - better - worse}/{worse}")
    return [["images' mIoU against [1], mean", *means], ["better/same/worse", *counts]]


def _mean(values: Iterable[float]) -> float:
    """Of those that are numbers; NaN where none is."""
    finite = [value for value in values if isfinite(value)]
    return sum(finite) / len(finite) if finite else nan
