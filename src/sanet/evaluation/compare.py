"""Results side by side, if they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path

from sanet.evaluation.report import ABSENT_RULE, SCORE_NAMES
from sanet.evaluation.results import Evaluation, read_scores
from sanet.structures import SanetError, UsageError


def compare(paths: Sequence[str | Path]) -> str:
    """A table for the terminal: IoU by class and the means of all results, in per cent, one column each.

    Two results or more also show how the pictures fare one by one, each against the same picture of the first result.

    Args:
        paths: files ``scores.json``, or folders that hold one.

    Raises:
        UsageError: no paths.
        SanetError: a file that is not there or was changed, or ground truth that differs; every difference is named.
    """
    if not paths:
        raise UsageError("name the results to compare: files scores.json, or folders that hold one")
    results = [read_scores(path) for path in paths]
    _require_one_truth(paths, results)
    first = results[0]
    numbers = [f"[{index + 1}]" for index in range(len(results))]
    classes = {name: [_percent(result.scores.class_iou[name], "absent") for result in results]
               for name in first.labels.names}  # fmt: skip
    means = {
        name: [_percent(getattr(result.scores, key)) for result in results]
        for key, name in SCORE_NAMES.items()
        if getattr(first.scores, key) is not None
    }
    means["mean of the pictures' mIoU"] = [_percent(_mean([*result.picture_miou.values()])) for result in results]
    paired = _paired(first, results) if len(results) > 1 else {}
    width = max(len(name) for name in [*classes, *means, *paired])
    columns = max(
        len(text) for texts in [numbers, *classes.values(), *means.values(), *paired.values()] for text in texts
    )

    def rows(table: dict[str, list[str]]) -> list[str]:
        return [
            " ".join([f"{name:{width}}", *(f" {text:>{columns}}" for text in texts)]) for name, texts in table.items()
        ]

    protocol = first.protocol
    data = f"a part of {protocol.data}" if protocol.partial else protocol.data
    head = rows({"IoU in per cent": numbers})
    rule = ["-" * len(head[0])]
    return "\n".join(
        [
            *(
                f"{number} {path} ({result.protocol.feeding()})"
                for number, path, result in zip(numbers, paths, results, strict=True)
            ),
            f"{data} {protocol.split}, {protocol.pictures} images; SHA-256 of the ground truth {protocol.digest[:12]}",
            "",
            *head,
            *rule,
            *rows(classes),
            *rule,
            *rows(means),
            *(rule + rows(paired) if paired else []),
            ABSENT_RULE,
        ]
    )


def _require_one_truth(paths: Sequence[str | Path], results: Sequence[Evaluation]) -> None:
    for path, result in zip(paths, results, strict=True):
        if len(results) > 1 and result.protocol.labels_sha256 is None:
            raise SanetError(f"{path} does not say which labels it was scored against; evaluate again")
    differences = [
        f"  {paths[0]} against {path}: {difference}"
        for path, result in zip(paths, results, strict=True)
        for difference in results[0].protocol.differences(result.protocol)
    ]
    if differences:
        raise SanetError("\n".join(["scores against different ground truth cannot be compared:", *differences]))


def _paired(first: Evaluation, results: Sequence[Evaluation]) -> dict[str, list[str]]:
    """Mean difference of the pictures' mIoU from the first result, and how many are better, the same or worse."""
    means, counts = ["—"], ["—"]
    for result in results[1:]:
        changes = [value - first.picture_miou[name] for name, value in result.picture_miou.items()]
        changes = [change for change in changes if isfinite(change)]
        means.append(f"{100 * _mean(changes):+.1f}" if changes else "—")
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        counts.append(f"{better}/{len(changes) - better - worse}/{worse}")
    return {"pictures' mIoU against [1], mean": means, "better/same/worse": counts}


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN where none is."""
    finite = [value for value in values if isfinite(value)]
    return sum(finite) / len(finite) if finite else nan


def _percent(share: float, otherwise: str = "—") -> str:
    return f"{100 * share:.1f}" if isfinite(share) else otherwise
