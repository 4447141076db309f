"""What a table of repeated runs is; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sanet.config import DataConfig, InferenceConfig
from sanet.settings import Options, check, within
from sanet.structures import UsageError, choose


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
        quoted: rows that are not trained: published scores in per cent by label, such as {CRF-RNN: {miou: 39.3}}.
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
    quoted: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)
        for label, figures in self.quoted.items():
            figures_of(f"quoted.{label}", figures)
        for pair in self.comparisons:
            for name in pair:
                choose("row in comparisons", name, tuple(self.rows))


def figures_of(where: str, given: Any) -> dict[str, float]:
    """What somebody has published, by name.

    Raises:
        UsageError: it is anything but numbers by name.
    """
    if not isinstance(given, Mapping) or not all(isinstance(value, int | float) for value in given.values()):
        raise UsageError(f"{where} {given!r}: give figures in per cent, such as {{miou: 53.0}}")
    return dict(given)
