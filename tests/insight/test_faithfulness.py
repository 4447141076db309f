"""Deletion and insertion against a network whose prediction rests on known pixels, and controls that stay such."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sanet
from sanet.evaluation.repeated import RESAMPLES
from sanet.insight.faithfulness import STEPS, Faithfulness, areas_of, faithfulness
from sanet.insight.groups import Explainer
from sanet.structures import LabelSet, Sample

SIDE = 40
PLACE = (10, 10)


class Reads(torch.nn.Module):
    """Two classes, of which the first has the more the whiter some pixels are."""

    temperature = 1.0

    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, images):
        evidence = 8 * (images[:, 0, self.read].mean(dim=1) - 0.5)
        logits = torch.stack([evidence, -evidence], dim=1)
        return SimpleNamespace(logits=logits[..., None, None].expand(-1, 2, SIDE, SIDE))


def test_a_map_of_the_pixels_that_are_read_is_the_most_faithful():
    random = np.random.default_rng(0)
    read = torch.from_numpy(random.random((SIDE, SIDE)) < 0.2)
    image, blurred = torch.ones(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)
    maps = [read.float(), torch.from_numpy(random.random((SIDE, SIDE))).float(), -read.float()]
    explainer = SimpleNamespace(network=Reads(read))
    right, chance, wrong = areas_of(explainer, image, blurred, maps, PLACE)
    low, high = torch.tensor([-8.0, 8.0]).sigmoid().tolist()
    # A share of 0.1 has half of the pixels that are read, and all the others have all of them.
    assert right == pytest.approx([(0.5 + (STEPS - 1) * low) / STEPS, (0.5 + (STEPS - 1) * high) / STEPS], abs=0.02)
    assert right[0] < chance[0] < wrong[0]
    assert right[1] > chance[1] > wrong[1]
    # What a map deletes last its opposite inserts first.
    assert wrong.sum() == pytest.approx(right.sum(), abs=0.02)


class Images:
    """Noise, and one image without labels."""

    labels = LabelSet(("left", "right", "never"), ignore_index=255)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        mask = torch.zeros(48, 64, dtype=torch.int64)
        mask[:, 32:] = 1
        mask[:] = 255 if index == 2 else mask
        image = torch.randint(0, 256, (3, 48, 64), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        return Sample(image, mask, str(index))


def test_points_are_the_same_for_every_network_and_images_without_labels_are_left_out():
    torch.manual_seed(0)
    networks = [sanet.create_model(name, "test_resnet", num_classes=3, output_stride=8) for name in ("sanet", "fcn")]
    explainers = [Explainer(network, "cpu", level=4) for network in networks]
    one, other = (faithfulness(explainer, Images(), 4, 2, progress=False) for explainer in explainers)
    assert one.names == ("head 1", "head 2", "head 3", "head 4", "level 4", "Grad-CAM", "nearness", "random")
    assert other.names == ("level 4", "Grad-CAM", "nearness", "random")
    assert one.areas.shape == (3, 8, 2)
    assert ((one.areas >= 0) & (one.areas <= 1)).all()
    again = faithfulness(explainers[0], Images(), 4, 2, progress=False)
    np.testing.assert_array_equal(one.areas, again.areas)


def test_the_random_map_has_no_part_in_the_points():
    """Networks with other sizes of the noise are asked for the same points."""
    asked = []

    class Asked(Explainer):
        def encode(self, image):
            encoding = super().encode(image)

            def grad_cam(x, y):
                asked[-1].append((x, y))
                return encoding.grad_cam(x, y)

            return encoding._replace(grad_cam=grad_cam)

    for stride in (8, 16):
        asked.append([])
        network = sanet.create_model("fcn", "test_resnet", num_classes=3, output_stride=stride)
        faithfulness(Asked(network, "cpu"), Images(), 3, 2, progress=False)
    assert asked[0] == asked[1]
    assert len({*asked[0]}) > 2


def test_the_table_has_means_and_intervals_over_images():
    random = np.random.default_rng(0)
    areas = random.random((50, 3, 2))
    found = Faithfulness(("head 1", "nearness", "random"), areas)
    lines = [line.split("  ") for line in found.table().splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines[2:]]
    assert [row[0] for row in cells] == ["head 1", "nearness", "random"]
    assert cells[1][-1] == "0.0 (0.0 to 0.0)"
    mean, low, high = (float(part) for part in cells[0][1].replace("(", "").replace(")", "").replace("to ", "").split())
    values = 100 * areas[:, 0, 0]
    assert mean == pytest.approx(values.mean(), abs=0.06)
    # Of 50 images the bootstrap is near what the normal distribution says.
    assert RESAMPLES >= 1000
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(50), rel=0.1)
    gains = areas[:, 0, 1] - areas[:, 0, 0] - (areas[:, 1, 1] - areas[:, 1, 0])
    assert float(cells[0][3].split()[0]) == pytest.approx(100 * gains.mean(), abs=0.06)


def test_the_documented_table_is_that_of_the_raw_files():
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "seeing.md").read_text(encoding="utf-8").partition("## Are they faithful?")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| .* \d+\.\d", line)]
    expected = []
    for name in ("streets", "fcn", "deeplabv3plus"):
        with (docs / "results" / "faithfulness" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            raw = [*csv.DictReader(file)]
        names = tuple(dict.fromkeys(row["map"] for row in raw))
        values = np.array([[row["deletion"], row["insertion"]] for row in raw], float).reshape(20, len(names), 2)
        expected += [line.split("  ") for line in Faithfulness(names, values).table().splitlines()[2:]]
    assert len(rows) == len(expected)
    for (name, *cells), line in zip(rows, expected, strict=True):
        found, *values = [cell.strip().replace("-", "−") for cell in line if cell]
        assert name.endswith(found.replace("−", "-"))
        assert cells[:2] == values[:2]
        assert cells[2] == (values[2] if found != "nearness" else "0")
