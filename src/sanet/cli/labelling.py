"""The command for those who label. Torch is imported inside, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sanet.cli.parsing import FLAT, Command, model_in, positional, words
from sanet.config import InferenceConfig
from sanet.settings import Chosen, within
from sanet.structures import say


@dataclass(frozen=True, kw_only=True)
class Next(Command):
    """Choose which images to label next.

    Args:
        pool: images without labels: files, folders and globs.
        model: run directory, model directory or hf:OWNER/NAME; streets is the bundled model.
        labelled: images that have labels already, likewise; those chosen are unlike them.
        count: images to choose.
        output: folder for next.csv.
        format: csv, or also the predictions of these images to correct in a tool: labelme, cvat, coco, yolo,
            labelstudio, via, geojson, or a format of your own, "my_module:Name".
        device: cpu, cuda, mps or xpu; by default the best there is.
        inference: inference settings.
    """

    pool: tuple[str, ...] = positional("POOL", nargs="+")
    model: str
    labelled: tuple[str, ...] = words("IMAGE", ())
    count: int = within(20, 1, 1_000_000)
    output: str = "next"
    format: Chosen = "csv"
    device: str | None = None
    inference: InferenceConfig = field(default_factory=InferenceConfig, metadata=FLAT)

    def __call__(self) -> None:
        from sanet.inference.choosing import LIST, next_to_label

        model, how = model_in(self.model), (self.output, self.format, self.inference, self.device)
        chosen = next_to_label(self.pool, model, self.count, self.labelled, *how)
        for each in chosen[:5]:
            say(f"label next: {each.image}, uncertainty {each.uncertainty:.2g}")
        say(f"all {len(chosen)}: {Path(self.output, LIST)}")
