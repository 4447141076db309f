"""What a table of repeated runs is; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sanet.config import DataConfig, InferenceConfig, TrainConfig
from sanet.settings import Options, check, settings_of, within
from sanet.structures import UsageError, choose

Settings = TypeVar("Settings")
# What a row may say beside settings of `sanet train`.
LABEL, PUBLISHED = "label", "published"


@dataclass(frozen=True)
class RepeatConfig:
    """A table: rows of settings that are trained with the same seeds, scored, and compared.

    Args:
        rows: settings of `sanet train` by the name of the row, as its YAML file has them, such as
            {fcn: {model: {name: fcn}}, sanet: {}}; and, where wanted, a label and published scores in per cent, as
            {label: SANet, published: {miou: 53.0}}.
        base: settings of all rows.
        comparisons: pairs of rows, the first minus the second, such as [[sanet, fcn]].
        title: heading of the table.
        data: the dataset.
        inference: inference settings that all rows are scored with.
        split: split that is scored; by default test, or val where there is no test.
        seeds: runs of each row, with the seeds 0, 1 and so on; a difference is judged from three.
        costs: measure parameters, multiply-accumulates and time of each network as well.
        output: folder for the runs, which all tables in it share, and for NAME.md, NAME.csv and NAME.html.
        name: name of these files.
    """

    rows: Options = field(default_factory=dict)
    base: Options = field(default_factory=dict)
    comparisons: tuple[tuple[str, str], ...] = ()
    title: str = "Repeated runs"
    data: DataConfig = field(default_factory=DataConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    split: str | None = None
    seeds: int = within(3, 1, 1000)
    costs: bool = True
    output: str = "repeated"
    name: str = "table"

    def __post_init__(self) -> None:
        check(self)
        for pair in self.comparisons:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise UsageError(f"comparisons {pair!r}: each is a pair of rows, such as [sanet, fcn]")
            for name in pair:
                choose("row in comparisons", name, tuple(self.rows))


@dataclass(frozen=True)
class Row:
    """One row, ready to be trained.

    Attributes:
        name: its key in ``RepeatConfig.rows``.
        label: what a reader is shown.
        config: its runs, but for seed and output.
        published: scores in per cent that somebody has published of it, by name.
    """

    name: str
    label: str
    config: TrainConfig
    published: Mapping[str, float]


def rows_of(table: RepeatConfig) -> list[Row]:
    """The rows of a table.

    Raises:
        UsageError: there are none, or one has a setting that does not exist.
    """
    if not table.rows:
        raise UsageError("rows: name at least one, such as {fcn: {model: {name: fcn}}, sanet: {}}")
    rows = []
    for name, given in table.rows.items():
        own = {key: value for key, value in (given or {}).items() if key not in (LABEL, PUBLISHED)}
        for key in ("data", "seed", "output"):
            if key in own or key in table.base:
                raise UsageError(f"rows.{name}: {key} is the table's, the same for every row")
        try:
            config = settings_of(TrainConfig, _merged(table.base, own))
        except UsageError as error:
            raise UsageError(f"rows.{name}: {error}") from error
        given = given or {}
        label = str(given.get(LABEL, name))
        rows.append(Row(name, label, replace(config, data=table.data), given.get(PUBLISHED, {})))
    return rows


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``, section by section; terms and options replace as a whole."""
    merged = dict(base)
    for name, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping) and name not in ("terms", "options")
        merged[name] = _merged(merged[name], value) if both else value
    return merged
