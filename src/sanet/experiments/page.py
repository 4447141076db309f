"""The result of an experiment as one HTML page: charts, tables, and the same pictures under all networks."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from sanet.config import MODEL, LossConfig
from sanet.data.catalog import data_source
from sanet.data.source import SegmentationDataset
from sanet.evaluation.page import data_url, environment, number, smaller_mask, smaller_picture, ticks
from sanet.experiments.claims import INTERVAL, MISSING, Claim, claim_table
from sanet.experiments.config import EXPERIMENTS
from sanet.experiments.costs import Costs
from sanet.experiments.runner import Result, RowResult
from sanet.evaluation.repeated import Spread
from sanet.experiments.summary import class_table, command, preface, spread_text, table
from sanet.inference.pictures import IGNORED, Mask, colorize
from sanet.inference.predictor import Predictor

PAPER = "https://arxiv.org/abs/1909.03402"
EXAMPLES, PICTURE_WIDTH = 4, 320
# Left, right, top and bottom of a chart's axes in its view box of 460 x 260, and the width of a letter of a name in it.
AXES, LETTER = (44.0, 440.0, 12.0, 222.0), 6.5


class Bar(NamedTuple):
    """A row as a bar from 0 to 100 per cent, with the ends of mean ± deviation and the paper's figure."""

    name: str
    spread: Spread
    low: float
    high: float
    published: float | None


class Point(NamedTuple):
    """A row in a chart, where it is drawn.

    Attributes:
        name: what is written beside it.
        x: of its middle.
        y: of its middle.
        low: y of mean - deviation.
        high: y of mean + deviation.
        label: x and y of its name, and how that is anchored.
        ours: whether it is drawn as the network that this package is about.
    """

    name: str
    x: float
    y: float
    low: float
    high: float
    label: tuple[float, float, str]
    ours: bool


class Chart(NamedTuple):
    """Points over an axis.

    Attributes:
        title: heading.
        axis: what x is.
        points: from left to right.
        joined: with lines.
        x_ticks: places and texts.
        y_ticks: places and texts.
    """

    title: str
    axis: str
    points: list[Point]
    joined: bool
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


class DrawnClaim(NamedTuple):
    """A claim as a line; places are in per cent of the width, None where there is nothing to draw.

    Attributes:
        text: the claim.
        verdict: what became of it.
        kind: "good", "bad", or nothing for what is neither.
        dot: place of the difference here.
        line: places of the ends of its interval.
        paper: place of the paper's difference.
        here: the difference here, in points.
        beside: its interval, and the paper's difference.
    """

    text: str
    verdict: str
    kind: str
    dot: float | None
    line: tuple[float, float] | None
    paper: float | None
    here: str
    beside: list[str]


class ClaimChart(NamedTuple):
    """All claims over one axis of points of mIoU: its rows, where 0 is, and places and texts of its ticks."""

    rows: list[DrawnClaim]
    zero: float
    ticks: list[tuple[float, str]]


class Panel(NamedTuple):
    """One picture of the page."""

    caption: str
    url: str


def write_page(path: Path, result: Result, costs: Costs, claims: Sequence[Claim]) -> None:
    """Write one HTML file that needs no other file, no script and no network."""
    dataset = data_source(result.config.data).open(result.split)
    examples, shown = _examples(result, dataset)
    labels = dataset.labels
    templates = environment(Path(__file__).parent)
    templates.filters["spread"] = spread_text
    text = templates.get_template("experiment.html.jinja").render(
        title=result.title,
        command=command(result),
        preface=preface(result, costs),
        paper=PAPER,
        claims=claim_chart(claims),
        interval=INTERVAL,
        table=table(result, costs),
        classes=class_table(result),
        bars=_bars(result),
        moved=result.rows[0].row.moved(),
        charts=_charts(result, costs),
        axes=AXES,
        examples=examples,
        shown=[pair for index, pair in enumerate(zip(labels.names, labels.colors, strict=True)) if index in shown],
        ignored=IGNORED,
        failures=result.failures(),
    )
    path.write_text(text, encoding="utf-8")


def claim_chart(claims: Sequence[Claim]) -> ClaimChart:
    """The claims as lines around 0."""
    values = [0.0]
    for claim in claims:
        values += [100 * claim.difference.mean, claim.published or 0.0]
        values += [100 * claim.difference.low, 100 * claim.difference.high] if claim.judged else []
    marks = ticks(min(filter(isfinite, values)), max(filter(isfinite, values)))

    def place(points: float) -> float:
        return 100 * (points - marks[0]) / (marks[-1] - marks[0])

    rows = []
    for claim, cells in zip(claims, claim_table(claims)[1], strict=True):
        here, interval, published, verdict = cells[-4:]
        low, high = 100 * claim.difference.low, 100 * claim.difference.high
        good, bad = verdict in ("reproduced", "better"), verdict.startswith("not reproduced") or verdict == "worse"
        beside = [interval] if interval != MISSING else []
        beside += [f"in the paper {published}"] if published != MISSING else []
        rows.append(
            DrawnClaim(
                claim.text,
                verdict,
                "good" if good else "bad" if bad else "",
                place(100 * claim.difference.mean) if isfinite(claim.difference.mean) else None,
                (place(low), place(high)) if claim.judged else None,
                place(claim.published) if claim.published is not None else None,
                here,
                beside,
            )
        )
    return ClaimChart(rows, place(0), [(place(mark), f"{mark:+g}" if mark else "0") for mark in marks])


def _bars(result: Result) -> list[Bar]:
    """MIoU of every finished row, with mean ± deviation and the paper's figure."""
    bars = []
    for row in _with_score(result):
        spread = row.spread("miou")
        deviation = 0.0 if isnan(spread.deviation) else spread.deviation
        published = row.row.recipe.published.get("miou")
        bars.append(Bar(row.row.label, spread, spread.mean - deviation, spread.mean + deviation, published))
    return bars


def _with_score(result: Result) -> list[RowResult]:
    """The finished rows in whose pictures there was something to score."""
    return [row for row in result.finished() if isfinite(row.spread("miou").mean)]


def _charts(result: Result, costs: Costs) -> list[Chart]:
    """Accuracy over cost, or over the weights of the loss; none where bars say all."""
    chart = EXPERIMENTS[result.name].chart
    finished = _with_score(result)
    if chart == "curves":
        losses = [(row.row.config.loss, row) for row in finished]
        # By value, since the weights of the paper are in both sweeps.
        own = LossConfig().terms
        alphas = {loss.terms["category"]: row for loss, row in losses if loss.terms["dense"] == own["dense"]}
        betas = {loss.terms["dense"]: row for loss, row in losses if loss.terms["category"] == own["category"]}
        curves = [("mIoU over α, β = 0.8", "α", alphas), ("mIoU over β, α = 0.2", "β", betas)]
        return [chart_of(title, axis, [*rows.values()], [*rows], joined=True) for title, axis, rows in curves if rows]
    timed = [row for row in finished if row.row.name in costs.rows]
    if chart == "bars" or not timed:
        return []
    of_rows = [costs.rows[row.row.name] for row in timed]
    return [
        chart_of("mIoU over time", "ms for a picture", timed, [1e3 * cost.timing.median for cost in of_rows]),
        chart_of("mIoU over MACs", "MACs (G)", timed, [cost.macs / 1e9 for cost in of_rows]),
        chart_of("mIoU over parameters", "parameters (M)", timed, [cost.parameters / 1e6 for cost in of_rows]),
    ]


def chart_of(title: str, axis: str, rows: Sequence[RowResult], places: Sequence[float], joined: bool = False) -> Chart:
    """The rows at these places of the x axis."""
    left, right, top, bottom = AXES
    spreads = [row.spread("miou") for row in rows]
    deviations = [0.0 if isnan(spread.deviation) else spread.deviation for spread in spreads]
    x_values = ticks(0, max(places))
    y_values = ticks(
        min(spread.mean - deviation for spread, deviation in zip(spreads, deviations, strict=True)),
        max(spread.mean + deviation for spread, deviation in zip(spreads, deviations, strict=True)),
    )

    def across(value: float) -> float:
        return left + (right - left) * (value - x_values[0]) / (x_values[-1] - x_values[0])

    def up(value: float) -> float:
        return bottom - (bottom - top) * (value - y_values[0]) / (y_values[-1] - y_values[0])

    points: list[Point] = []
    for place, row, spread, deviation in sorted(zip(places, rows, spreads, deviations, strict=True), key=itemgetter(0)):
        x, y = across(place), up(spread.mean)
        name = "" if joined else row.row.label
        ours = row.row.config.model.name == "sanet"
        low, high = up(spread.mean - deviation), up(spread.mean + deviation)
        points.append(Point(name, x, y, low, high, _beside(x, y, name, points), ours))
    return Chart(
        title,
        axis,
        points,
        joined,
        [(across(value), f"{value:g}") for value in x_values],
        [(up(value), f"{value:g}") for value in y_values],
    )


def _beside(x: float, y: float, name: str, points: Sequence[Point]) -> tuple[float, float, str]:
    """Where a name goes: right of its point, left of it near the edge, and lower where another name is in the way."""
    anchor = "end" if x + 8 + LETTER * len(name) > AXES[1] + 20 else "start"
    across, height = x + (8 if anchor == "start" else -8), y - 5
    left, right = _span(across, name, anchor)
    for other in sorted(points, key=lambda point: point.label[1]):
        begins, ends = _span(other.label[0], other.name, other.label[2])
        if abs(other.label[1] - height) < 12 and left < ends + 4 and begins < right + 4:
            height = other.label[1] + 12
    return across, height, anchor


def _span(across: float, name: str, anchor: str) -> tuple[float, float]:
    """Where a name begins and ends, from left to right."""
    width = LETTER * len(name)
    return (across, across + width) if anchor == "start" else (across - width, across)


def _examples(result: Result, dataset: SegmentationDataset) -> tuple[list[tuple[str, list[Panel]]], set[int]]:
    """Pictures at even steps through the split, each as it is, as it should be, and as the networks have it.

    Returns:
        Names with their panels, and the classes that are seen.
    """
    device = "cpu" if result.config.accelerator == "cpu" else None
    networks = [(row, Predictor(row.runs[0].directory / MODEL, device, row.row.views)) for row in result.finished()]
    count = min(EXAMPLES, len(dataset))
    examples, seen = [], set()
    for index in range(count):
        sample = dataset[(2 * index + 1) * len(dataset) // (2 * count)]
        image, truth = sample.image.permute(1, 2, 0).numpy(), sample.mask.numpy()
        panels = [
            Panel("picture", data_url(smaller_picture(image, PICTURE_WIDTH), "JPEG")),
            Panel("truth", _mask(truth, dataset)),
        ]
        for row, predictor in networks:
            prediction = predictor.label(sample.image.to(predictor.device)).cpu().numpy()
            miou = row.runs[0].evaluation.picture_miou[str(sample.name)]
            panels.append(Panel(f"{row.row.label} {number(miou)}", _mask(prediction, dataset)))
            seen |= set(prediction.ravel().tolist())
        examples.append((str(sample.name), panels))
        seen |= set(truth.ravel().tolist())
    return examples, seen


def _mask(mask: Mask, dataset: SegmentationDataset) -> str:
    return data_url(colorize(smaller_mask(mask, PICTURE_WIDTH), dataset.labels), "PNG")
