"""Tables 2, 4, 5 and 6 as the paper has them: every row with its figures, and what trains it here, if anything does."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RESNET101, EFFICIENTNET_B7 = "resnet101.tv_in1k", "tf_efficientnet_b7.aa_in1k"


@dataclass(frozen=True)
class Published:
    """A row.

    Args:
        table: its name here.
        system: what the paper calls it.
        backbone: as the paper writes it, where it does.
        network: of ``--model.name``; empty where there is no code of it here (docs/paper.md says why).
        figures: scores in per cent by their names here, table 4's classes among them; MACs in G, parameters in M.
    """

    table: str
    system: str
    backbone: str
    network: str
    figures: Mapping[str, float]

    @property
    def label(self) -> str:
        """The system; and its backbone, where that is none of SANet's."""
        theirs = self.backbone and self.backbone not in ("ResNet101", "EffNet-b7")
        return f"{self.system} (published over {self.backbone})" if theirs else self.system

    @property
    def ours(self) -> str:
        """The timm model that it is trained over here."""
        return EFFICIENTNET_B7 if self.backbone == "EffNet-b7" else RESNET101

    @property
    def recipe(self) -> str:
        """Name of what trains it here; empty where nothing does."""
        backbone = self.ours.partition(".")[0].removeprefix("tf_")
        return f"{self.table}-{self.network.removeprefix('smp_')}-{backbone}" if self.network else ""

    @classmethod
    def of(cls, line: dict[str, str]) -> Published:
        """A line of published.csv."""
        given = [line.pop(name) for name in ("table", "system", "backbone", "network")]
        if given[0] == "table2":  # the only one with background
            line["miou_with_background"] = line.pop("miou")
        return cls(*given, {name: float(value) for name, value in line.items() if value})


with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as _file:
    PUBLISHED = [Published.of(line) for line in csv.DictReader(_file)]


def published_table(table: str) -> str:
    """One of the tables in Markdown, with the recipe that trains a row here."""
    rows = [row for row in PUBLISHED if row.table == table]
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [["as published", "backbone", *names, "here"], ["---"] * (len(names) + 3)]
    for row in rows:
        figures = [f"{row.figures[name]:.1f}" if name in row.figures else "—" for name in names]
        lines.append([row.system, row.backbone, *figures, row.recipe or "no code"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
