"""What the rows of an experiment say about each other: differences, their intervals, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from sanet.experiments.config import EXPERIMENTS
from sanet.experiments.runner import Result, RowResult
from sanet.evaluation.repeated import SCORES, Difference, paired_bootstrap

MISSING = "—"
# With two, one difference in five between equal networks would be taken for one that is there.
RUNS_TO_JUDGE = 3
INTERVAL = "middle 95 % of the bootstrap"


@dataclass(frozen=True)
class Claim:
    """Two rows, one of which is said to be better by a score.

    Attributes:
        better: the row that is said to be.
        worse: the other.
        score: "miou", or "pixel_accuracy" where the paper has both.
        difference: of their scores here, in shares of 1.
        published: of their scores in the paper, in points; None where it says nothing in figures.
        verdict: what follows.
    """

    better: RowResult
    worse: RowResult
    score: str
    difference: Difference
    published: float | None
    verdict: str

    @property
    def text(self) -> str:
        """The claim in words, which name the score where it is not the mIoU."""
        rows = f"{self.better.row.label} over {self.worse.row.label}"
        return rows if self.score == "miou" else f"{rows}, {self.score.replace('_', ' ')}"

    @property
    def judged(self) -> bool:
        """Whether there are enough runs of both, and pixels, for an interval that says something."""
        return _runs(self.better, self.worse) >= RUNS_TO_JUDGE and isfinite(self.difference.low)


def claims(result: Result) -> list[Claim]:
    """Every claim of the experiment that has both its rows, with what became of it.

    All are judged by mIoU, and then those by pixel accuracy of whose rows the paper gives it.
    """
    return [
        _claim(better, worse, score, EXPERIMENTS[result.name].published)
        for score in SCORES
        for better, worse in result.claims()
        if score == "miou" or all(score in row.row.recipe.published for row in (better, worse))
    ]


def _claim(better: RowResult, worse: RowResult, score: str, papers: bool) -> Claim:
    difference = paired_bootstrap(better.picture_sums(), worse.picture_sums(), score)
    ours, theirs = (row.row.recipe.published.get(score) for row in (better, worse))
    published = None if ours is None or theirs is None else ours - theirs
    verdict = _verdict(difference, _runs(better, worse), papers, published)
    return Claim(better, worse, score, difference, published, verdict)


def _runs(better: RowResult, worse: RowResult) -> int:
    return min(len(better.runs), len(worse.runs))


def _verdict(difference: Difference, runs: int, papers: bool, published: float | None) -> str:
    """What the interval allows to say.

    Args:
        difference: of the two networks here.
        runs: of the one that has fewer.
        papers: whether the claim is the paper's; of others it is said in other words.
        published: the paper's difference, in points, where it has one.
    """
    if not isfinite(difference.mean) or not isfinite(difference.low):
        return "nothing to score"
    if runs < RUNS_TO_JUDGE:
        return f"fewer than {RUNS_TO_JUDGE} runs"
    if difference.low > 0:
        smaller = papers and published is not None and published > 100 * difference.high
        return ("reproduced in part: smaller than in the paper" if smaller else "reproduced") if papers else "better"
    if difference.high < 0:
        return "not reproduced: the other way round" if papers else "worse"
    return "not reproduced: not told from chance" if papers else "not told from chance"


def claim_table(found: Sequence[Claim]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: the differences, their intervals, and what follows; the backbone where there are several."""
    several = len({claim.better.row.config.model.backbone for claim in found}) > 1
    heading = ["claim", *(["backbone"] if several else []), "difference here", INTERVAL, "in the paper", "verdict"]
    return heading, [
        [
            claim.text,
            *([claim.better.row.config.model.backbone] if several else []),
            _points(claim.difference.mean),
            f"{_points(claim.difference.low)} to {_points(claim.difference.high)}" if claim.judged else MISSING,
            MISSING if claim.published is None else f"{claim.published:+.1f}",
            claim.verdict,
        ]
        for claim in found
    ]


def _points(share: float) -> str:
    return f"{100 * share:+.1f}" if isfinite(share) else MISSING
