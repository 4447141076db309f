"""The figures of docs/results, computed again from the raw files that are committed beside them."""

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from reproduce.recipes import RECIPES
from reproduce.tables import TABLES

from sanet.deploy.profile import count_macs
from sanet.evaluation.repeated import COVERAGE, RUNS_TO_JUDGE, SCORES, Spread, paired_bootstrap
from sanet.models.networks import create_model
from sanet.repeated.table import spread_text

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, PAGE = DOCS / "results", (DOCS / "results.md").read_text(encoding="utf-8")
PAPER = (DOCS / "paper.md").read_text(encoding="utf-8")
NAMES = sorted(folder.name.partition("-")[0] for folder in RESULTS.glob("*-camvid") if (folder / "table.md").is_file())
# A table that had another name.
TABLE_OF = {"peers": "baselines"}
each_table = pytest.mark.parametrize("name", NAMES)
MISSING = "—"


class Scored(NamedTuple):
    """A scores.json as it was written, of whichever version, and the sums of images beside it."""

    scores: SimpleNamespace
    names: list[str]
    protocol: dict
    confusion: np.ndarray
    image_sums: np.ndarray | None


def read_scores(path):
    file = path if path.suffix == ".json" else path / "scores.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    sums = file.with_name("pictures.npz")
    return Scored(
        SimpleNamespace(**content["scores"]),
        content["labels"]["names"],
        content["protocol"],
        np.array(content["confusion"]),
        np.load(sums)["sums"] if sums.exists() else None,
    )


class Row(NamedTuple):
    """The runs of a row of a committed table."""

    network: str
    published: float | None
    cost: dict
    folders: list
    runs: list

    def spread(self, score):
        return Spread.of([100 * getattr(run.scores, score) for run in self.runs])

    def image_sums(self):
        return np.array([run.image_sums for run in self.runs])


def rows_of(name):
    """By the name without the backbone, from runs.csv and the raw files that it names."""
    folder = RESULTS / f"{name}-camvid"
    costs = json.loads((folder / "costs.json").read_text(encoding="utf-8"))["rows"]
    lines = {}
    with (folder / "runs.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            lines.setdefault(line["row"], []).append(line)
    rows = {}
    for row, given in lines.items():
        folders = [RESULTS / "runs" / line["run"] for line in given]
        runs = [read_scores(folder / "test") for folder in folders]
        for line, run in zip(given, runs, strict=True):
            assert float(line["miou"]) == run.scores.miou
        published = float(given[0]["published_miou"]) * 100 if given[0]["published_miou"] else None
        network = row.partition("/")[0]
        rows[network] = Row(network, published, costs[row], folders, runs)
    return rows


def claims_of(name):
    """Differences of the pairs that a table is about, by mIoU and, where the paper has it, by pixel accuracy."""
    rows = rows_of(name)
    accuracy = {
        key.partition("-")[2].rpartition("-")[0]: recipe.published.get("pixel_accuracy")
        for key, recipe in reversed(RECIPES.items())
        if key.startswith(f"{TABLE_OF.get(name, name)}-")
    }
    found = {}
    for score in SCORES:
        for better, worse in TABLES[TABLE_OF.get(name, name)].claims:
            pair = rows[better], rows[worse]
            published = [row.published if score == "miou" else accuracy[row.network] for row in pair]
            if score == "miou" or all(published):
                difference = paired_bootstrap(pair[0].image_sums(), pair[1].image_sums(), score)
                theirs = published[0] - published[1] if all(published) else None
                found[better, worse, score] = (difference, theirs)
    return found


def verdict_of(difference, theirs, papers):
    if difference.low > 0:
        smaller = papers and theirs is not None and theirs > 100 * difference.high
        return ("reproduced in part: smaller than in the paper" if smaller else "reproduced") if papers else "better"
    if difference.high < 0:
        return "not reproduced: the other way round" if papers else "worse"
    return "not reproduced: not significant" if papers else "not significant"


def section(heading):
    """The cells of the tables under a heading of results.md, without their own headings, and with no bold type."""
    text = PAGE.split(f"### {heading}", 1)[1].split("\n### ")[0].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", text.replace("**", ""), re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]] for table in tables
    ]


def val(row):
    """Of the last epochs."""
    values = []
    for folder in row.folders:
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            values.append(100 * float([*csv.DictReader(file)][-1]["val/miou"]))
    return Spread.of(values)


def test_there_are_tables():
    assert {"table1", "table3"} <= {*NAMES}


@each_table
def test_all_runs_are_of_the_same_images(name):
    rows = rows_of(name)
    known = {(folder / "data.json").read_text() for row in rows.values() for folder in row.folders}
    assert len(known) == 1
    truth = [
        {key: value for key, value in run.protocol.items() if key not in ("scales", "mirror", "window", "shorter_side")}
        for row in rows.values()
        for run in row.runs
    ]
    assert all(one == truth[0] for one in truth)


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("Table 1: squeeze-and-attention heads, categorical loss, dense loss", "table1"),
        ("Table 3: squeeze-and-attention against squeeze-and-excitation", "table3"),
        ("Baselines over the same backbone", "peers"),
    ],
)
def test_the_page_of_results_has_their_figures(heading, name):
    rows, papers = rows_of(name), TABLES[TABLE_OF.get(name, name)].published
    scores, differences, *classes = section(heading)
    for line, row in zip(scores, rows.values(), strict=True):
        published = [f"{row.published:.1f}"] if name != "peers" else []
        parameters, macs, timing = row.cost["parameters"], row.cost["macs"], row.cost["timing"]
        shown = [f"{parameters / 1e6:.2f} M", f"{macs / 1e9:.2f} G", f"{1e3 * timing[0]:.0f} ms"]
        last = shown if name != "table1" else [spread_text(val(row))]
        assert line[1:] == [spread_text(row.spread("miou")), *published, *last]
    for line, (found, theirs) in zip(differences, claims_of(name).values(), strict=True):
        here, low, high = (f"{100 * value:+.1f}" for value in (found.mean, found.low, found.high))
        assert line[1:] == [
            here,
            f"{low} to {high}",
            MISSING if theirs is None else f"{theirs:+.1f}",
            verdict_of(found, theirs, papers),
        ]
    for table in classes:
        for line, row in zip(table, rows.values(), strict=True):
            means = [fmean(run.scores.class_iou[name] for run in row.runs) for name in row.runs[0].names]
            assert line[1:] == [f"{100 * mean:.1f}" for mean in means]


def test_what_is_said_of_table_1_follows():
    """SANet against SA: below it on test in mIoU, in nothing else, and how far that is to be trusted."""
    rows, page, found = rows_of("table1"), " ".join(PAGE.split()), claims_of("table1")
    (miou, published), (pixels, _) = (found["sanet", "sa", score] for score in ("miou", "pixel_accuracy"))
    assert f"the {published:.1f} points that they gain in the paper" in page
    assert f"That they cost {-100 * miou.mean:.1f} points is not established" in page
    assert miou.high < 0 < 100 * miou.high + published
    assert f"In pixel accuracy SANet has {100 * pixels.mean:+.1f} over SA" in page
    assert pixels.low < 0 < pixels.high
    assert f"on val it has {val(rows['sanet']).mean - val(rows['sa']).mean:+.1f} of mIoU" in page
    gains = [100 * found["sa", "fcn", score][0].mean for score in ("miou", "pixel_accuracy")]
    assert f"{gains[0]:.1f} points of mIoU and {gains[1]:.1f} of pixel accuracy" in page
    judged, held = sum(score == "miou" for _, _, score in found), COVERAGE[RUNS_TO_JUDGE] / 100
    assert judged == 5
    assert f"misses the true difference in {100 - COVERAGE[RUNS_TO_JUDGE]} % of cases" in page
    assert f"({100 * (1 - held**judged):.0f} %, were they independent)" in page


def test_what_is_said_of_table_3_follows():
    rows = {name: row.spread("miou").mean for name, row in rows_of("table3").items()}
    assert ("the mean of FCN-SE is not above FCN's" in PAGE) == (rows["fcn_se"] <= rows["fcn"])


def test_figures_of_the_runs_of_before():
    """With seed 0, the window of 8 and 30 epochs."""
    names = {"FCN": "fcn-*-08b9d678", "FCN-SE": "fcn_se-*-fb01359b", "SANet": "sanet-*-0e8fdf1f"}
    found = {}
    for label, name in names.items():
        (folder,) = (RESULTS / "runs").glob(f"{name}-seed0")
        found[label] = 100 * read_scores(folder / "test").scores.miou
        assert f"{label} {found[label]:.1f}" in PAGE
    gains = [found["SANet"] - found["FCN"], found["SANet"] - found["FCN-SE"]]
    assert f"so {gains[0]:+.1f} and {gains[1]:+.1f}" in PAGE
    (folder,) = (RESULTS / "runs").glob("sanet-*-dbe41339-seed0")
    window_of_2 = 100 * read_scores(folder / "test").scores.miou
    assert (
        f"SANet has\n{window_of_2:.1f}: {window_of_2 - found['FCN']:+.1f} over FCN and "
        f"{window_of_2 - found['FCN-SE']:+.1f} over FCN-SE"
    ) in PAGE
    scores = {name: 100 * row.runs[0].scores.miou for name, row in rows_of("table3").items()}
    sooner = [scores["sanet"] - scores[name] for name in ("fcn", "fcn_se")]
    assert f"the same seed has {sooner[0]:+.1f} and\n{sooner[1]:+.1f}" in PAGE


def last_of_val(folder):
    return last_of(RESULTS / folder / "metrics.csv", "val/miou")


def last_of(path, column):
    """The last value of a column that some lines leave empty."""
    with path.open(encoding="utf-8") as file:
        return float([line[column] for line in csv.DictReader(file) if line[column]][-1])


def choices(name, column="val/miou"):
    return last_of(RESULTS / "choices" / f"{name}.csv", column)


def test_the_figures_of_the_choices():
    """With seeds 0, 1 and so on; seed 0 is not named in a file's name."""

    def line(network, *names):
        seeds = [f"{network}-{name}" for name in names]
        return ", ".join(f"{choices(f'short/{name}'):.3f}" for name in seeds)

    rows = {
        "head rate 10 times (the default until then)": (("sanet", "head10"), ("fcn", "head10")),
        "3 times (the default now)": (
            ("sanet", "head3", "head3-seed1"),
            ("fcn", "head3", "head3-seed1", "head3-seed2"),
        ),
        "the same rate": (("sanet", "head1"), ("fcn", "head1")),
        "the same rate, both 0.02": (("sanet", "head1-rate0.02"), None),
        "3 times, `class_weighting: none`": (("sanet", "no-balance"), ("fcn", "no-balance")),
        "3 times, `class_weighting: fourth_root`": (("sanet", "fourth-root"), None),
        "3 times, output stride 8": (("sanet", "stride8"), None),
        "3 times, `downsample: 4`": (("sanet", "downsample4"), None),
        "10 times, `reduction: 1`": (("sanet", "head10-reduction1"), None),
        "10 times, scales of 1 to 3": (("sanet", "head10-scales1-3"), None),
    }
    paper = PAPER.replace("**", "")
    for label, (sanet, fcn) in rows.items():
        assert f"| {label} | {line(*sanet)} | {line(*fcn) if fcn else ''} |".replace("|  |", "| |") in paper
    for label, name in (
        ("FCN", "fcn"),
        ("SANet, `downsample: 8`", "sanet-downsample8"),
        ("4", "sanet-downsample4"),
        ("2", "sanet-downsample2"),
        ("2, `loss.terms: {mask: 1}`", "sanet-downsample2-sa-alone"),
    ):
        assert f"| {label} | {choices(f'held-out/{name}'):.3f} | {choices(f'held-out/{name}-seed1'):.3f} |" in paper
    poles = [
        fmean(choices(f"held-out/sanet-downsample{window}{seed}", "val/iou/pole") for seed in ("", "-seed1"))
        for window in (2, 8)
    ]
    assert f"poles ({poles[0]:.2f}; with 8, {poles[1]:.2f})" in paper
    for text in (
        f"average {choices('base'):.3f} | maximum {choices('max'):.3f} |",
        f"as the caption of figure 4 has them: {choices('swapped'):.3f}; the loss of the mask is still "
        f"{choices('swapped', 'train/mask'):.2f} in the last epoch, "
        f"with the default {choices('base', 'train/mask'):.2f}",
        f"presence {choices('base'):.3f} | share {choices('share'):.3f} |",
        f"With seed 1 the same settings have {choices('base-seed1'):.3f}",
    ):
        assert text in paper


def test_what_other_pages_say_of_the_choices():
    data = " ".join((DOCS / "data.md").read_text(encoding="utf-8").split())
    gains = [
        100 * (choices(f"held-out/sanet-downsample2{seed}") - choices(f"held-out/sanet-downsample8{seed}"))
        for seed in ("", "-seed1")
    ]
    assert f"on a street that was held out {gains[0]:.1f} and {gains[1]:.1f} points, two seeds" in data
    none, root = (
        {network: f"{choices(f'short/{network}-{name}'):.3f}" for network in ("fcn", "sanet")}
        for name in ("no-balance", "head3")
    )
    assert f"from {none['sanet']} to {root['sanet']}, and FCN from {none['fcn']} to {root['fcn']}" in data
    page = " ".join(PAGE.split())
    assert (
        f"FCN has {none['fcn']} on val and SANet {none['sanet']}, with `sqrt` {root['fcn']} and {root['sanet']}" in page
    )


def test_output_stride_8_costs_what_the_page_says():
    macs = []
    for stride in (8, 16):
        with torch.device("meta"):
            model = create_model("sanet", "tf_efficientnet_lite0", num_classes=11, output_stride=stride)
            macs.append(count_macs(model, torch.empty(1, 3, 360, 480)) / 1e9)
    assert f"with {macs[0] / macs[1]:.1f} times the MACs ({macs[0]:.2f} G and {macs[1]:.2f} G at 480x360" in PAPER


def test_table_3_was_made_again_with_a_log():
    """The runs of the first networks are there for three seeds, and their claim is judged as the experiment does."""
    rows = {line[0]: line[1:] for line in section("Table 3, made again with a log")[0]}
    runs = {
        label: [read_scores(folder) for folder in sorted((RESULTS / "again").glob(f"{name}-*"))]
        for label, name in {"FCN": "fcn", "FCN-SE": "fcn_se", "SANet": "sanet"}.items()
    }
    sums = {label: np.array([run.image_sums for run in found]) for label, found in runs.items()}
    for label, found in runs.items():
        assert [cell for cell in rows[label][:3] if cell] == [f"{100 * run.scores.miou:.1f}" for run in found]
        if label != "SANet":
            gained = paired_bootstrap(sums["SANet"], sums[label])
            assert rows[label][3].split(",")[0] == f"{100 * gained.mean:+.1f}"
            interval = f"{100 * gained.low:+.1f} to {100 * gained.high:+.1f}"
            assert rows[label][4] == (interval if len(found) >= RUNS_TO_JUDGE else "")


def unlogged():
    """Runs with processes that load pictures, several epochs, and no log that shows that nothing resumed them."""
    found = set()
    for file in RESULTS.rglob("*.yaml"):
        run = file.parent if file.name == "config.yaml" else file.with_suffix("")
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        workers = config.get("num_workers", config.get("workers"))  # older runs
        if workers and config["epochs"] > 1 and not (run / "log.txt").is_file():
            found.add(run.relative_to(RESULTS).as_posix())
    return found


def under(name, anchor):
    """The text of a page under the heading that a link names, up to the next heading."""
    for part in re.split(r"^#+ ", (DOCS / name).read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        if re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") == anchor:
            return text
    raise AssertionError(f"{name} has no heading {anchor}")


def test_runs_that_may_have_been_resumed_are_listed_and_marked():
    table = re.findall(r"^\| `.*$", under("results.md", "runs-that-may-have-been-resumed"), re.MULTILINE)
    left = unlogged()
    for line in table:
        patterns, number, what = (cell.strip() for cell in line.strip("|").split("|"))
        names = re.findall("`([^`]+)`", patterns)
        matching = {run for run in left if any(fits(run, name) for name in names)}
        assert int(number) == len(matching)
        left -= matching
        for page, anchor in re.findall(r"\]\((\S*)#(\S+)\)", what):
            assert "†" in under(page or "results.md", anchor)
    assert not left


def fits(run, pattern):
    """A star stands for no slash."""
    return run.count("/") == pattern.count("/") and fnmatch(run, pattern)


def test_the_figures_of_the_packages_own_model():
    page = PAGE.replace("**", "")
    scores = {
        (folder, split): read_scores(RESULTS / folder / f"scores-{split}.json")
        for folder in ("own", "own-lite0")
        for split in ("val", "test")
    }
    for split, name in (("val", "val, chosen by"), ("test", "test")):
        found = scores["own", split].scores
        shown = (f"{value:.3f}" for value in (found.miou, found.pixel_accuracy, found.mean_accuracy))
        assert f"| {name} | {' | '.join(shown)} |" in page
    for (folder, split), row in zip(scores, ("val", "test", None, "test, Lite0"), strict=True):
        found = scores[folder, split]
        assert found.protocol == scores["own", split].protocol
        if row:
            assert f"| {row} | {' | '.join(f'{value:.2f}' for value in found.scores.class_iou.values())} |" in page
    for folder, row in (
        ("own", "Lite2, 80 epochs, `fourth_root`: ships"),
        ("own-lite0", "Lite0, 45 epochs, `sqrt`: shipped before it"),
    ):
        shown = [last_of_val(folder), *(scores[folder, split].scores.miou for split in ("val", "test"))]
        assert f"| {row} | {' | '.join(f'{value:.3f}' for value in shown)} |" in page
    sizes = {side: read_scores(RESULTS / "own" / f"scores-val-{side}.json") for side in (600, 840)}
    assert all(found.protocol["shorter_side"] == side for side, found in sizes.items())
    chosen = [sizes[600], scores["own", "val"], sizes[840]]
    shown = "600 pixels it has {:.3f}, of 720 {:.3f}, of 840 {:.3f}".format(*(found.scores.miou for found in chosen))
    assert shown in " ".join(page.split())
    for name, row in (("0.99", "the running mean of its weights, decay 0.99 a step"), ("0.998", "decay 0.998")):
        tried = read_scores(RESULTS / "own-lite0" / f"scores-val-ema-{name}.json")
        assert tried.protocol == scores["own", "val"].protocol
        assert f"| {row} | | {tried.scores.miou:.3f} | |" in page


def test_what_the_confusions_of_the_packages_own_models_say():
    before_on_val = read_scores(RESULTS / "own-lite0" / "scores-val.json")
    names = before_on_val.names
    building, fence = names.index("building"), names.index("fence")
    columns = [before_on_val.confusion[:, names.index(name)] for name in ("pedestrian", "pole", "sign", "fence")]
    shares = [f"{100 * column[building] / column.sum():.0f}" for column in columns]
    page = " ".join(PAGE.split())
    assert f"pedestrian, pole, sign and fence on val, {', '.join(shares[:3])} and {shares[3]} % was building" in page
    fences = [read_scores(RESULTS / folder / "scores-test.json").confusion[fence] for folder in ("own", "own-lite0")]
    now, before = (100 * counts[building] / counts.sum() for counts in fences)
    assert f"{now:.0f} % of them are taken for buildings, {before:.0f} % were before" in page


def test_the_figures_of_the_control():
    with (RESULTS / "control" / "runs.csv").open(encoding="utf-8") as file:
        runs = {(row["row"], int(row["seed"])): row for row in csv.DictReader(file)}
    for row in runs.values():
        scores = json.loads((RESULTS / "control" / row["run"] / "val" / "scores.json").read_text(encoding="utf-8"))
        assert scores["scores"]["miou"] == float(row["miou"])
    lines = re.findall(r"^\|[^|]*\|(.*)\|$", under("results.md", "is-it-the-attention").replace("**", ""), re.MULTILINE)
    names = ["fcn", "fcn_se", "sanet", "merged", "merged_wide", "excited", "last", "sanet_c", "merged_c"]
    figures = {key: f"{100 * float(row['miou']):.1f}" for key, row in runs.items()}
    for name, line in zip(names, lines[2:], strict=True):
        assert [cell.strip() for cell in line.split("|")] == [figures.get((name, seed), "") for seed in range(3)]


@pytest.mark.parametrize(("name", "label"), [("scenes-sanet", "SANet"), ("scenes-fcn", "FCN")])
def test_the_figures_of_the_scenes(name, label):
    content = json.loads((RESULTS / name / "scores.json").read_text())["scores"]
    line = next(line for line in PAGE.replace("**", "").splitlines() if line.startswith(f"| {label} | 0."))
    assert (
        line
        == f"| {label} | {content['miou']:.3f} | {content['pixel_accuracy']:.3f} | {content['class_iou']['post']:.2f} |"
    )
