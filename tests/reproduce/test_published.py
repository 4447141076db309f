"""The figures of docs/results, computed again from the raw files that are committed beside them."""

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
import yaml

from sanet.config import DataConfig
from sanet.deploy.profile import count_macs
from sanet.evaluation.repeated import Spread, paired_bootstrap
from sanet.evaluation.results import read_scores
from sanet.experiments.claims import RUNS_TO_JUDGE, claim_table, claims
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.costs import known_costs
from sanet.experiments.fingerprint import read
from sanet.experiments.runner import FinishedRun, Result, RowResult
from sanet.experiments.summary import COVERAGE, class_table, markdown, spread_text, write_runs
from sanet.experiments.tables import rows_of
from sanet.models.networks import create_model

DOCS = Path(__file__).parents[2] / "docs"
RESULTS, PAGE = DOCS / "results", (DOCS / "results.md").read_text(encoding="utf-8")
PAPER = (DOCS / "paper.md").read_text(encoding="utf-8")
TABLES = sorted(folder.name.partition("-")[0] for folder in RESULTS.glob("*-camvid") if (folder / "table.md").is_file())
each_table = pytest.mark.parametrize("name", TABLES)


def result_of(name):
    """What `sanet experiment NAME` had in its hands, but for the pictures and the networks."""
    config = ExperimentConfig(DataConfig("camvid", "DIR"), backbones=("tf_efficientnet_lite0",))
    rows = []
    for row in rows_of(name, config):
        folders = [RESULTS / "runs" / f"{row.key}-seed{seed}" for seed in range(config.seeds)]
        runs = [FinishedRun(seed, folder, read_scores(folder / "test")) for seed, folder in enumerate(folders)]
        rows.append(RowResult(row, runs))
    return Result(name, config, "test", read(rows[0].runs[0].directory / "data.json"), rows)


def costs_of(result):
    return known_costs(result, RESULTS / f"{result.name}-camvid" / "costs.json")


def section(heading):
    """The cells of the tables under a heading of results.md, without their own headings, and with no bold type."""
    text = PAGE.split(f"### {heading}", 1)[1].split("\n### ")[0].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", text.replace("**", ""), re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]] for table in tables
    ]


def val(found):
    """Of the last epochs."""
    values = []
    for run in found.runs:
        with (run.directory / "metrics.csv").open(encoding="utf-8") as file:
            values.append(100 * float([*csv.DictReader(file)][-1]["val/miou"]))
    return Spread.of(values)


def test_there_are_tables():
    assert {"table1", "table3"} <= {*TABLES}


@each_table
def test_a_table_is_what_its_raw_files_say(name, tmp_path):
    result, folder = result_of(name), RESULTS / f"{name}-camvid"
    costs = costs_of(result)
    assert costs.rows.keys() == costs.runs.keys()

    def lines(text):
        return [re.sub(r"sanet \d.*\.$", "sanet", line) for line in text.splitlines()]

    assert lines(markdown(result, costs, claims(result))) == lines((folder / "table.md").read_text(encoding="utf-8"))
    write_runs(tmp_path / "runs.csv", result, costs)
    assert (tmp_path / "runs.csv").read_text() == (folder / "runs.csv").read_text()
    page = (folder / "index.html").read_text(encoding="utf-8")
    for claim in claims(result):
        assert claim.verdict in page
        assert f"{100 * claim.difference.mean:+.1f}" in page


@each_table
def test_all_runs_are_of_the_same_pictures(name):
    result = result_of(name)
    runs = [run for row in result.rows for run in row.runs]
    assert result.pictures.keys() == {"train", "test"}
    assert all(read(run.directory / "data.json") == result.pictures for run in runs)
    assert len({run.evaluation.protocol.digest for run in runs}) == 1


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("Table 1: squeeze-and-attention heads, categorical loss, dense loss", "table1"),
        ("Table 3: squeeze-and-attention against squeeze-and-excitation", "table3"),
        ("Rivals over the same backbone", "peers"),
    ],
)
def test_the_page_of_results_has_their_figures(heading, name):
    result = result_of(name)
    scores, differences, *classes = section(heading)
    costs = costs_of(result)
    for line, found in zip(scores, result.rows, strict=True):
        published = [f"{found.row.recipe.published['miou']:.1f}"] if name != "peers" else []
        cost = costs.rows[found.row.name]
        shown = [f"{cost.parameters / 1e6:.2f} M", f"{cost.macs / 1e9:.2f} G", f"{1e3 * cost.timing.median:.0f} ms"]
        last = shown if name != "table1" else [spread_text(val(found))]
        assert line[1:] == [spread_text(found.spread("miou")), *published, *last]
    assert [line[1:] for line in differences] == [row[1:] for row in claim_table(claims(result))[1]]
    for table in classes:
        assert [line[1:] for line in table] == [row[1:] for row in class_table(result)[1]]


def test_what_is_said_of_table_1_follows():
    """SANet against SA: below it on test in mIoU, in nothing else, and how far that is to be trusted."""
    result, page = result_of("table1"), " ".join(PAGE.split())
    found = {claim.text.replace(" (SA + Cat + Den)", ""): claim for claim in claims(result)}
    miou, pixels = (found[f"SANet over SA{score}"] for score in ("", ", pixel accuracy"))
    assert f"the {miou.published:.1f} points that they gain in the paper" in page
    assert f"That they cost {-100 * miou.difference.mean:.1f} points is not established" in page
    assert miou.difference.high < 0 < 100 * miou.difference.high + miou.published
    assert f"In pixel accuracy SANet has {100 * pixels.difference.mean:+.1f} over SA" in page
    assert pixels.difference.low < 0 < pixels.difference.high
    assert f"on val it has {val(miou.better).mean - val(miou.worse).mean:+.1f} of mIoU" in page
    gains = [100 * found[f"SA over FCN{score}"].difference.mean for score in ("", ", pixel accuracy")]
    assert f"{gains[0]:.1f} points of mIoU and {gains[1]:.1f} of pixel accuracy" in page
    judged, held = sum(claim.score == "miou" for claim in found.values()), COVERAGE[RUNS_TO_JUDGE] / 100
    assert judged == 5
    assert f"misses the true difference in {100 - COVERAGE[RUNS_TO_JUDGE]} % of cases" in page
    assert f"({100 * (1 - held**judged):.0f} %, were they independent)" in page


def test_what_is_said_of_table_3_follows():
    rows = {row.row.network: row.spread("miou").mean for row in result_of("table3").rows}
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
    scores = {row.row.network: 100 * row.runs[0].evaluation.scores.miou for row in result_of("table3").rows}
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
        ("2, `loss.alpha` and `loss.beta` 0", "sanet-downsample2-sa-alone"),
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
    sums = {label: np.array([run.picture_sums for run in found]) for label, found in runs.items()}
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
        if config["workers"] and config["epochs"] > 1 and not (run / "log.txt").is_file():
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
    assert all(found.protocol.shorter_side == side for side, found in sizes.items())
    chosen = [sizes[600], scores["own", "val"], sizes[840]]
    shown = "600 pixels it has {:.3f}, of 720 {:.3f}, of 840 {:.3f}".format(*(found.scores.miou for found in chosen))
    assert shown in " ".join(page.split())
    for name, row in (("0.99", "the running mean of its weights, decay 0.99 a step"), ("0.998", "decay 0.998")):
        tried = read_scores(RESULTS / "own-lite0" / f"scores-val-ema-{name}.json")
        assert tried.protocol == scores["own", "val"].protocol
        assert f"| {row} | | {tried.scores.miou:.3f} | |" in page


def test_what_the_confusions_of_the_packages_own_models_say():
    before_on_val = read_scores(RESULTS / "own-lite0" / "scores-val.json")
    names = list(before_on_val.labels.names)
    building, fence = names.index("building"), names.index("fence")
    columns = [before_on_val.confusion[:, names.index(name)] for name in ("pedestrian", "pole", "sign", "fence")]
    shares = [f"{100 * column[building] / column.sum():.0f}" for column in columns]
    page = " ".join(PAGE.split())
    assert f"pedestrian, pole, sign and fence on val, {', '.join(shares[:3])} and {shares[3]} % was building" in page
    fences = [read_scores(RESULTS / folder / "scores-test.json").confusion[fence] for folder in ("own", "own-lite0")]
    now, before = (100 * counts[building] / counts.sum() for counts in fences)
    assert f"{now:.0f} % of them are taken for buildings, {before:.0f} % were before" in page


@pytest.mark.parametrize(("name", "label"), [("scenes-sanet", "SANet"), ("scenes-fcn", "FCN")])
def test_the_figures_of_the_scenes(name, label):
    content = json.loads((RESULTS / name / "scores.json").read_text())["scores"]
    line = next(line for line in PAGE.replace("**", "").splitlines() if line.startswith(f"| {label} | 0."))
    assert (
        line
        == f"| {label} | {content['miou']:.3f} | {content['pixel_accuracy']:.3f} | {content['class_iou']['post']:.2f} |"
    )
