"""The teaching page, made from the steps themselves: `python -m ablations.teaching >
docs/roadmap.md`."""

from ablations import diagram
from ablations.paper import paper_row
from ablations.regimes import Regime, get_regime
from ablations.roadmaps import PAPER
from ablations.step import Step
from models.complexity import stage_complexity

_HEAD = """\
# From ResNet to ConvNeXt, step by step

Made by `python -m ablations.teaching > docs/roadmap.md`; a test checks that it is current. Sections, figures and
top-1 (ImageNet-1K, 224x224) are those of "A ConvNet for the 2020s" (Liu et al., CVPR 2022), smaller regime. FLOPs are
counted on our networks in the paper's convention: convolutions and the classifier, one multiply-add is one FLOP.
In a drawing, `|` is the residual branch; between two drawings `~` marks a changed line, `+` a new one, `-` one that
goes. `python runner.py show STEP` prints one of them, with parameters and FLOPs per stage.
"""


def page() -> str:
    """The whole page, for the smaller regime."""
    regime = get_regime("tiny")
    counted = [
        (step, sum(part.flops for part in stage_complexity(PAPER.architecture(step, regime))) / 1e9)
        for step in PAPER.rows(regime)
    ]
    return "\n".join(
        [_HEAD, _contents(counted), *(_section(regime, step, gflops) for step, gflops in counted)]
    )


def _contents(counted: list[tuple[Step, float]]) -> str:
    rows = [
        "| N | step | change | source | GFLOPs | paper's GFLOPs | paper's top-1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for step, gflops in counted:
        number = "" if step.number is None else step.number
        paper = paper_row("tiny", step.name)
        printed, top1 = (paper.gflops_printed, f"{paper.top1:.2f} %") if paper else ("", "")
        link = f"[{step.name}](#{step.name})"
        rows.append(
            f"| {number} | {link} | {step.sentence} | {step.source} | {gflops:.2f} | {printed} | "
            f"{top1} |"
        )
    return "\n".join(rows) + "\n"


def _section(regime: Regime, step: Step, gflops: float) -> str:
    number = "Off the path" if step.number is None else f"Step {step.number}"
    flags = ", ".join(f"`{name}={value!r}`" for name, value in step.changes(regime).items())
    if step.reference:
        flags = "a network of its own, `SwinArchitecture`"
    elif not flags:
        flags = "none: the recipe changes" if step.after else "none: `Architecture()`"
    paper = paper_row(regime.name, step.name)
    lines = [
        f"## {step.name}",
        "",
        f"{number}: {step.sentence}. {step.source.capitalize()}.",
        "",
        f"- Flags: {flags}",
        f"- GFLOPs: {gflops:.2f}" + (f"; the paper prints {paper.gflops_printed}" if paper else ""),
    ]
    if paper:
        lines.append(f"- Top-1 in the paper: {paper.top1:.2f} %")
        lines += [f"- Note: {paper.note}"] if paper.note else []
    return "\n".join(
        [*lines, "", "```text", diagram.drawing(PAPER, regime, step).rstrip(), "```", ""]
    )


if __name__ == "__main__":
    print(page(), end="")
