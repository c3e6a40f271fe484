"""What may be said of a difference: two questions, two intervals, and a verdict that the study's
plan foresaw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

from report.contrast import Contrast, detectable, holm
from studies.plan import Images

Verdict = Literal["gain", "loss", "no difference", "not resolved", "one seed"]


@dataclass(frozen=True)
class Answer:
    """What the runs say to one question about a difference; everything in points of top-1.

    `low` to `high` covers the truth with the plan's confidence, also where it was looked at several
    times. `p` is of no difference at all and `p_margin` of one as large as the margin, both over
    the looks taken; `p_holm` and `p_margin_holm` are corrected for the whole family and decide.
    """

    low: float
    high: float
    standard_error: float
    p: float
    p_holm: float
    p_margin: float
    p_margin_holm: float
    verdict: Verdict
    detectable: float
    """The gap that runs such as these find with 80 % power, corrected for the family."""
    seeds_needed: int | None
    """How many in both rows would find a gap as large as the observed with 80 % power; None: 1,000
    would not."""


class Answered:
    """What has been asked both questions; an answer is None where a row has one seed."""

    these_images: Answer | None
    new_images: Answer | None

    def answer_to(self, question: Images) -> Answer | None:
        return self.new_images if question == "new" else self.these_images

    def in_words(self, question: Images, margin: float) -> str:
        """The verdict as a reader is told it."""
        answer = self.answer_to(question)
        if answer is None:
            return "one seed, no verdict"
        return (
            f"no difference larger than {margin:g}"
            if answer.verdict == "no difference"
            else answer.verdict
        )


@dataclass(frozen=True)
class Judgement(Answered):
    """Top-1 of `row` minus top-1 of `after`, in points, and what may be said of it.

    The two answers are None where a row has one seed: then `these_runs`, an interval for these very
    networks on new images, is all there is, and it is a description.
    """

    family: str
    row: str
    after: str
    points: float
    seeds: tuple[int, int]
    shared: int
    """Seeds that both rows have."""
    look: int
    """Looks taken at this comparison."""
    futile: bool
    """It gets no more seeds, for they were unlikely to resolve it."""
    margin: float
    question: Images
    these_images: Answer | None
    new_images: Answer | None
    these_runs: tuple[float, float]

    @property
    def answer(self) -> Answer | None:
        """To the question that the plan chose for the verdict."""
        return self.answer_to(self.question)

    @property
    def verdict(self) -> Verdict:
        return "one seed" if self.answer is None else self.answer.verdict

    @property
    def sign(self) -> int:
        """1 for a gain, -1 for a loss, 0 for anything else."""
        return {"gain": 1, "loss": -1}.get(self.verdict, 0)

    @property
    def words(self) -> str:
        """The verdict as a reader is told it."""
        if self.look == 0 and self.answer is not None:
            return "not looked at yet"
        return self.in_words(self.question, self.margin)

    @property
    def smallest_p(self) -> float:
        """The least that a test without assumptions could give: flipping pairs of equal seeds, or
        exchanging runs.

        Below it, a p-value stands on seeds being normal and rows sharing one spread.
        """
        a, b = self.seeds
        if self.shared == a == b:
            return 2.0 ** (1 - a)
        return min(1.0, 2 / comb(a + b, a))


@dataclass
class SequentialTest:
    """What the looks so far say to one question: the least p-values, what Holm makes of them, the
    verdict."""

    p: float = 1.0
    p_margin: float = 1.0
    p_holm: float = 1.0
    p_margin_holm: float = 1.0
    verdict: Verdict = "not resolved"

    def look(
        self, seen: Contrast, question: str, margin: float, over_looks: Callable[[float], float]
    ) -> None:
        """Take in the p-values of a look; `over_looks` turns a two-sided one into that of all
        looks."""
        uncertainty, gap = seen.of[question], abs(seen.points)
        self.p = min(self.p, over_looks(min(1.0, 2 * uncertainty.tail(gap))))
        # Two one-sided tests: each spends its level as one side of a two-sided test of twice that
        # level does.
        self.p_margin = min(
            self.p_margin, over_looks(min(1.0, 2 * uncertainty.tail(margin - gap))) / 2
        )

    def decide(self, points: float, level: float) -> None:
        """The verdict, once p-values are corrected; it stands. Where a gap is both real and small,
        it is real."""
        if self.verdict != "not resolved":
            return
        if self.p_holm < level:
            self.verdict = "gain" if points > 0 else "loss"
        elif self.p_margin_holm < level:
            self.verdict = "no difference"


def correct(tracks: Sequence[SequentialTest]) -> None:
    """Holm's correction over a family: of gains and losses, and apart from it of no difference."""
    none, margin = holm([track.p for track in tracks]), holm([track.p_margin for track in tracks])
    for track, p_holm, p_margin_holm in zip(tracks, none, margin, strict=True):
        track.p_holm, track.p_margin_holm = float(p_holm), float(p_margin_holm)


def answer(
    seen: Contrast, question: str, track: SequentialTest, level: float, corrected: float
) -> Answer:
    """`level` is that of the interval, `corrected` the one that a verdict needs in its family."""
    uncertainty = seen.of[question]
    half = uncertainty.reach(level / 2)
    return Answer(
        seen.points - half,
        seen.points + half,
        uncertainty.error,
        track.p,
        track.p_holm,
        track.p_margin,
        track.p_margin_holm,
        track.verdict,
        detectable(uncertainty, corrected),
        seen.seeds_needed(question, corrected),
    )
