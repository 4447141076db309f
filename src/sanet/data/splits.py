"""Splits of images that have none, by group: what belongs together is in one split, as far as names tell.

A split follows from the names, the settings and the seed alone, so that it is the same on every machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple

from sanet.config import DataConfig
from sanet.data.decoding import DataError
from sanet.data.source import Record
from sanet.structures import UsageError, choose

DEFAULT = {"val": 0.2}
SLACK = 1.25  # times its share that a split may have, so that groups stay whole
FEW = 5  # runs, of which none is held out whole
# What names of copies end with: Roboflow's hash and suffix, what augmentation, cutting and file managers add.
COPY = re.compile(
    r"(?:\.rf\.[0-9a-f]{16,64}|[-_. ](?:jpe?g|png|bmp|tiff?|webp)| ?\(\d+\)| - copy"
    r"|[-_ ](?:aug(?:mented)?|[hv]?flip(?:ped)?|mirror(?:ed)?|rot(?:ated?)?|crop(?:ped)?|scaled?|blur(?:red)?|noisy?"
    r"|bright(?:ness)?|contrast|copy)[-_ ]?(?:180|270|\d{1,2})?|[-_ ](?:tile|patch)[-_ ]?\d+(?:[-_]\d+)?)$",
    re.IGNORECASE,
)


class Split(NamedTuple):
    """How names were split."""

    parts: dict[str, str]  # the split of every name
    groups: dict[str, str]  # what a name has in common with others, which are in the same split
    rule: str  # in words


def split_names(names: Sequence[str], options: Mapping[Any, Any], groups: Mapping[str, str] | None = None) -> Split:
    """Divide names into "train", "val" and, where it is wanted, "test".

    Copies of an image stay together, and so do names that differ in one number alone, the last one that varies:
    frames of a film. Runs that are few, or too long to be held out, are cut: their last images are held out.

    Args:
        names: every image once.
        options: {"val": share, "test": share, "seed": n}, or {"folds": k, "fold": i}: fold i of k is "val".
        groups: the group of every name, where somebody says them.

    Raises:
        UsageError: settings that cannot be.
        DataError: there are too few groups.
    """
    shares, folds, seed = _checked(options)
    runs: dict[str, str] = {}
    if groups is not None:
        blocks, rule = {name: groups[name] for name in names}, "each group is in one of them"
    else:
        origins = {name: origin_of(name) for name in names}
        runs = _runs(sorted(set(origins.values())))
        sizes = Counter(runs[origin] for origin in origins.values())
        several = {run for run, size in sizes.items() if size > 1}
        limit = SLACK * min(shares.values()) * len(names)
        cut = {run for run in several if len(several) < FEW or sizes[run] > limit}
        blocks = {name: origin if runs[origin] in cut else runs[origin] for name, origin in origins.items()}
        held = "; of each that is long, or where they are few, the last ones, as one block" if cut else ""
        rule = f"images whose names differ in a number alone (frames of a film), and copies, stay together{held}"
    order = _order(blocks, runs, seed)
    part_of = _folded(order, folds, options.get("fold", 0)) if folds else _shared(order, shares, len(names))
    parts = {name: part_of[blocks[name]] for name in names}
    counts = Counter(parts.values())
    if len(names) > 1 and not all(counts[part] for part in ("train", *shares)):
        raise DataError(
            f"{len(names)} images in {len(set(blocks.values()))} groups cannot be divided into train, "
            f"{', '.join(shares)} without cutting a group; name smaller groups with data.group, or write train.txt and "
            "val.txt"
        )
    which = f"fold {options.get('fold', 0)} of {folds}: " if folds else ""
    shown = ", ".join(f"{counts[part]} in {part}" for part in ("train", *shares))
    return Split(
        parts,
        blocks,
        f"nothing says the splits, so they are made: {which}{shown}; {rule}",
    )


def divided(
    found: Mapping[str, Sequence[Record]], settings: DataConfig, told: bool
) -> tuple[dict[str, list[Record]], list[str]]:
    """The records of every split, and what was decided: by their splits, or made where nothing says them.

    Args:
        found: records by split; under "" those of none.
        settings: group and split.
        told: somebody listed the splits, so that none is made of another.

    Raises:
        UsageError: a split is wanted of what has splits.
        DataError: see ``split_names``.
    """
    if settings.group is not None:
        named = settings.group
        found = {part: [replace(one, group=in_group(one.name, named)) for one in all] for part, all in found.items()}
    records = {part: [*members] for part, members in found.items() if part}
    loose = [*found.get("", ())]
    if loose and records:  # they are in no split, which the check counts
        loose = []
    elif not loose and not told and "val" not in records:
        loose = records.get("train", [])
    if not loose:
        if settings.split:
            raise UsageError(f"data.split: {settings.root} has splits of its own, {', '.join(records)}")
        return records, []
    groups = {record.name: record.group or record.name for record in loose}
    said = any(record.group for record in loose)
    made = split_names([*groups], settings.split, groups if said else None)
    parts: dict[str, list[Record]] = {}
    for record in loose:
        parts.setdefault(made.parts[record.name], []).append(replace(record, group=made.groups[record.name]))
    return {**records, **parts}, [made.rule]


def _checked(options: Mapping[Any, Any]) -> tuple[dict[str, float], int, int]:
    """Shares of the splits beside "train", the number of folds, and the seed."""
    for key, value in options.items():
        choose("setting of data.split", str(key), ("val", "test", "seed", "folds", "fold"))
        if type(value) is not int and not (key in ("val", "test") and type(value) is float):
            raise UsageError(f"data.split.{key} {value!r}: a number")
    if "folds" in options:
        folds, fold = options["folds"], options.get("fold", 0)
        if not 2 <= folds <= 100 or not 0 <= fold < folds or {"val", "test"} & options.keys():
            raise UsageError("data.split: 2 to 100 folds, a fold from 0 on, and no shares beside them")
        return {"val": 1 / folds}, folds, options.get("seed", 0)
    shares = {part: options.get(part, default) for part, default in (("val", DEFAULT["val"]), ("test", 0))}
    if not (0 < shares["val"] <= 0.5 and 0 <= shares["test"] <= 0.5):
        raise UsageError(f"data.split {dict(options)}: val and test are shares of all images, 0.5 at most")
    return {part: share for part, share in shares.items() if share}, 0, options.get("seed", 0)


def in_group(name: str, pattern: str) -> str:
    """What a regular expression finds in a name: its first group, or all of it."""
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise UsageError(f"data.group {pattern!r} is no regular expression: {error}") from error
    text = found and (found[1] if found.re.groups else found[0])
    if text is None:
        raise DataError(f"data.group {pattern!r} finds nothing in {name!r}; every image has to be in a group")
    return str(text)


def origin_of(name: str) -> str:
    """The name of the image of which this is a copy by its name, such as ``a`` of ``a_jpg.rf.<hash>`` or ``a_flip``."""
    while (shorter := COPY.sub("", name)) and shorter != name:
        name = shorter
    return name


def _runs(names: Sequence[str]) -> dict[str, str]:
    """The run of each name: itself with a # for the last of its numbers that varies among names of its form."""
    forms: dict[str, list[str]] = {}
    for name in names:
        forms.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    runs = {}
    for members in forms.values():
        columns = zip(*(re.findall(r"\d+", member) for member in members), strict=True)
        varying = [index for index, column in enumerate(columns) if len(set(column)) > 1]
        for member in members:
            parts = re.split(r"(\d+)", member)
            if varying:
                parts[2 * varying[-1] + 1] = "#"
            runs[member] = "".join(parts)
    return runs


def _order(blocks: Mapping[str, str], runs: Mapping[str, str], seed: int) -> list[list[tuple[str, int]]]:
    """Groups with their sizes, in chains: those of a run that is cut in the order of its numbers, any other alone."""
    sizes = Counter(blocks.values())
    chains: dict[str, list[str]] = {}
    for block in sizes:
        chains.setdefault(runs.get(block, block), []).append(block)
    drawn = sorted(chains, key=lambda chain: sha256(f"{seed}:{chain}".encode("utf-8", "surrogateescape")).digest())
    return [[(block, sizes[block]) for block in sorted(chains[chain], key=_natural)] for chain in drawn]


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    """A key by which 9 is before 10."""
    parts = re.split(r"(\d+)", name)
    return [(text, int(number or 0)) for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True)], name


def _shared(order: Sequence[Sequence[tuple[str, int]]], shares: Mapping[str, float], count: int) -> dict[str, str]:
    """The split of each group: of chains the end, of others as many as fill the share."""
    parts: dict[str, str] = {}
    totals = Counter[str]()
    for chain in (chain for chain in order if len(chain) > 1):
        whole = sum(size for _, size in chain)
        end = len(chain)
        for part in sorted(shares, key=lambda part: totals[part] / shares[part]):
            taken = 0
            while end > 1 and taken < max(1, round(shares[part] * whole)):
                end -= 1
                parts[chain[end][0]] = part
                taken += chain[end][1]
            totals[part] += taken
    alone = [chain[0] for chain in order if len(chain) == 1]
    for part, share in shares.items():
        fitting = [(name, size) for name, size in alone if name not in parts]
        for name, size in fitting:
            if totals[part] < share * count and totals[part] + size <= SLACK * share * count:
                parts[name] = part
                totals[part] += size
        if not totals[part] and fitting and (len(fitting) > 1 or len(alone) < len(order)):  # none fits: the smallest
            name, size = min(fitting, key=lambda entry: entry[1])
            parts[name], totals[part] = part, size
    return {name: parts.get(name, "train") for chain in order for name, _ in chain}


def _folded(order: Sequence[Sequence[tuple[str, int]]], folds: int, fold: int) -> dict[str, str]:
    """One fold as "val": of each chain a block, of the others the largest first, where fewest images are by then."""
    held, totals = dict[str, int](), dict.fromkeys(range(folds), 0)
    for chain in sorted(order, key=lambda chain: (len(chain) == 1, -chain[0][1])):
        for index, (name, size) in enumerate(chain):
            place = index * folds // len(chain) if len(chain) > 1 else min(totals, key=lambda one: (totals[one], one))
            held[name] = place
            totals[place] += size
    return {name: "val" if place == fold else "train" for name, place in held.items()}
