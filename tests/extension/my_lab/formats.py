"""An annotation format: a line of text for each box, as the lab's tool writes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sanet import Annotation, Format, LabelSet, Region


class Boxes(Format):
    """``NAME.boxes`` beside ``NAME.png``: a label, then the first and the last column and row of a box."""

    def recognises(self, root: Path) -> str:
        """By the ending."""
        return "files that end with .boxes" if next(root.rglob("*.boxes"), None) else ""

    def read(self, root: Path) -> list[Annotation]:
        """All images of an export with their regions."""
        return [self._annotation(path) for path in sorted(root.rglob("*.boxes"))]

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """The box around each region."""
        for each in annotations:
            boxes = [(region.label, *region.drawn(each.size)) for region in each.regions]
            lines = [
                f"{label} {left} {left + bits.shape[1] - 1} {top} {top + bits.shape[0] - 1}\n"
                for label, left, top, bits in boxes
            ]
            path = (folder / self.image_place(each)).with_suffix(".boxes")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines), encoding="utf-8")

    def _annotation(self, path: Path) -> Annotation:
        image, regions = path.with_suffix(".png"), []
        for line in path.read_text(encoding="utf-8").splitlines():
            label, *sides = line.split()
            left, right, top, bottom = map(float, sides)
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            regions.append(Region(label, (corners,)))
        return Annotation(image.name, image, Image.open(image).size, tuple(regions), None, path)
