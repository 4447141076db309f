"""What an experiment writes: table, page, runs and costs."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from trials import Place, config_of

from brightness import write_pictures
from sanet.experiments.experiment import experiment
from sanet.experiments.page import PAPER
from sanet.evaluation.repeated import paired_bootstrap
from sanet.experiments.summary import _pipes
from sanet.files import note


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.images, self.references, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href") if name in values]
        self.images += [values["alt"]] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


def test_the_files_say_what_was_found(finished):
    place, result = finished
    text = (place.table() / "table.md").read_text()
    page = Page((place.table() / "index.html").read_text())
    assert all(reference.startswith("data:image/") for reference in page.references if reference != PAPER)
    assert PAPER in page.references
    assert len(page.images) == 3 * 5  # three pictures; each as it is, as it should be, and under three networks
    with (place.table() / "runs.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert len(records) == 6
    for row in result.rows:
        values = [100 * run.evaluation.scores.miou for run in row.runs]
        mine = [record for record in records if record["row"] == row.row.name]
        assert [100 * float(record["miou"]) for record in mine] == pytest.approx(values)
        shown = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        line = next(line for line in text.splitlines() if line.startswith(f"| {row.row.recipe.label} "))
        assert shown in line
        assert shown in page.text
        assert f" {row.row.recipe.published['miou']} " in line
    fcn, _, sanet = (row.picture_sums() for row in result.rows)
    difference = paired_bootstrap(sanet, fcn)
    claim = next(line for line in text.splitlines() if line.startswith("| SANet over FCN "))
    assert f"{100 * difference.mean:+.1f} " in claim
    assert "| — " in claim  # two runs have no interval
    assert "fewer than 3 runs" in claim
    for text in ("SANet over FCN", "fewer than 3 runs", f"{100 * difference.mean:+.1f}", "in the paper +4.1"):
        assert text in page.text
    assert "+4.1 " in claim  # 49.0 - 44.9, the paper's table 3


@pytest.mark.parametrize("change", ["runs", "height", "machine"])
def test_costs_are_measured_once_and_anew_for_anything_else(copy, change):
    kept = copy.table() / "costs.json"
    before = json.loads(kept.read_text())
    experiment("table3", config_of(copy))
    assert json.loads(kept.read_text()) == before
    changed = {"runs": {**before["runs"], "fcn/test_resnet": "another"}, "height": 7, "machine": ["a GPU", 1, "2.0"]}
    old = {
        **before,
        change: changed[change],
        "rows": {name: {**row, "macs": 1} for name, row in before["rows"].items()},
    }
    kept.write_text(json.dumps(old))
    note(kept, kept)
    experiment("table3", config_of(copy))
    again = json.loads(kept.read_text())
    assert again[change] == before[change]
    for name, row in before["rows"].items():
        assert [again["rows"][name][key] for key in ("parameters", "macs")] == [row["parameters"], row["macs"]]


def without_a_row(text):
    content = json.loads(text)
    del content["rows"]["fcn/test_resnet"]
    return json.dumps(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"macs"', '"mac"'),
        lambda text: text.replace('"timing": [', '"timing": ["a", '),
        without_a_row,
    ],
    ids=["cut", "of something else", "of another version", "of no numbers", "of fewer rows"],
)
def test_costs_that_are_damaged_are_measured_again(copy, damage):
    kept = copy.table() / "costs.json"
    before = json.loads(kept.read_text())
    kept.write_text(damage(kept.read_text()))
    note(kept, kept)
    assert kept.read_text() != json.dumps(before)
    assert not experiment("table3", config_of(copy)).result.failures()
    again = json.loads(kept.read_text())
    assert {name: row["macs"] for name, row in again["rows"].items()} == {
        name: row["macs"] for name, row in before["rows"].items()
    }
    assert not [*copy.table().glob("*.partial")]


@pytest.mark.parametrize("name", ["figure4", "table6"])
def test_charts(name, tmp_path):
    """Curves with a point for each weight, and accuracy over cost with a name for each network."""
    write_pictures(tmp_path / "data", train=4, val=2)
    place = Place(tmp_path / "data", tmp_path / "out")
    experiment(name, config_of(place, seeds=1, epochs=1))
    text = (place.table(name) / "index.html").read_text()
    charts = re.findall(r"<figure>\s*<h3>(.*?)</h3>\s*<svg.*?</svg>", text, re.DOTALL)
    points = [chart.count("<circle") for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    if name == "figure4":
        assert charts == ["mIoU over α, β = 0.8", "mIoU over β, α = 0.2"]
        assert points == [6, 6]
    else:
        assert charts == ["mIoU over time", "mIoU over MACs", "mIoU over parameters"]
        assert points == [3, 3, 3]
        names = re.findall(r'class="name"[^>]*>(.*?)</text>', text)
        assert [sorted(names[first : first + 3]) for first in (0, 3, 6)] == [["DeepLabV3+", "FCN", "SANet"]] * 3


def test_pictures_in_which_nothing_is_labelled_are_no_error(tmp_path):
    """There is a table, with dashes, and a page without bars."""
    place = Place(tmp_path / "data", tmp_path / "out")
    write_pictures(place.data, train=4, val=2)
    for file in (place.data / "val" / "masks").iterdir():
        mask = Image.open(file)
        Image.new("L", mask.size, 255).save(file)
    experiment("table6", config_of(place, epochs=1))
    text = (place.table("table6") / "table.md").read_text()
    assert re.search(r"^\| SANet +\| test_resnet +\| \d+ +\| — +\| — +\| — +\| 2 ", text, re.MULTILINE)
    assert "nothing to score" in text
    assert "nan" not in Page((place.table("table6") / "index.html").read_text()).text


def test_a_class_can_be_called_anything_in_a_table():
    heading, _, row = _pipes(["class", "a | b"], [["<script>", "[x](javascript:1)"]]).splitlines()
    assert [line.count(" | ") for line in (heading.replace("\\|", ""), row)] == [1, 1]
    assert r"\<script>" in row
    assert r"[x\](javascript:1)" in row
