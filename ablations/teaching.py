"""The teaching page, made from the steps themselves: `python -m ablations.teaching > docs/roadmap.md`."""

from ablations import diagram
from ablations.paper import paper_row
from ablations.regimes import Regime, get_regime
from ablations.roadmaps import PAPER
from ablations.step import Step

_HEAD = """\
# From ResNet to ConvNeXt, step by step

Made by `python -m ablations.teaching > docs/roadmap.md`; a test checks that it is current. Sections, figures and
top-1 (ImageNet-1K, 224x224) are those of "A ConvNet for the 2020s" (Liu et al., CVPR 2022), smaller regime. FLOPs are
counted on our networks in the paper's convention: convolutions and the classifier, one multiply-add is one FLOP.
In a drawing, `|` is the residual branch; between two drawings `~` marks a changed line, `+` a new one, `-` one that
goes. `python runner.py show STEP` prints one of them, with parameters and FLOPs per stage.
"""


def page(regime: Regime | None = None) -> str:
    """The whole page for the smaller regime."""
    regime = regime or get_regime("tiny")
    return "\n".join([_HEAD, _contents(regime), *(_section(regime, step) for step in PAPER.rows(regime))])


def _contents(regime: Regime) -> str:
    rows = [
        "| N | step | change | source | GFLOPs | paper's GFLOPs | paper's top-1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for step in PAPER.rows(regime):
        number = "" if step.number is None else step.number
        ours, printed, top1 = _figures(regime, step)
        link = f"[{step.name}](#{step.name})"
        rows.append(f"| {number} | {link} | {step.sentence} | {step.source} | {ours} | {printed} | {top1} |")
    return "\n".join(rows) + "\n"


def _figures(regime: Regime, step: Step) -> tuple[str, str, str]:
    paper = paper_row(regime.name, step.name)
    printed, top1 = (paper.gflops_printed, f"{paper.top1:.2f} %") if paper else ("", "")
    return f"{_gflops(regime, step):.2f}", printed, top1


_counted: dict[tuple[str, str], float] = {}


def _gflops(regime: Regime, step: Step) -> float:
    from models.complexity import stage_complexity

    key = (regime.name, step.name)
    if key not in _counted:
        _counted[key] = sum(part.flops for part in stage_complexity(PAPER.architecture(step, regime))) / 1e9
    return _counted[key]


def _section(regime: Regime, step: Step) -> str:
    number = "Off the path" if step.number is None else f"Step {step.number}"
    flags = ", ".join(f"`{name}={value!r}`" for name, value in step.changes(regime).items())
    if step.reference:
        flags = "a network of its own, `SwinArchitecture`"
    elif not flags:
        flags = "none: the recipe changes" if step.after else "none: `Architecture()`"
    ours, printed, top1 = _figures(regime, step)
    paper = paper_row(regime.name, step.name)
    lines = [
        f"## {step.name}",
        "",
        f"{number}: {step.sentence}. {step.source.capitalize()}.",
        "",
        f"- Flags: {flags}",
        f"- GFLOPs: {ours}" + (f"; the paper prints {printed}" if printed else ""),
    ]
    if top1:
        lines.append(f"- Top-1 in the paper: {top1}")
    if paper and paper.note:
        lines.append(f"- Note: {paper.note}")
    return "\n".join([*lines, "", "```text", diagram.drawing(PAPER, regime, step).rstrip(), "```", ""])


if __name__ == "__main__":
    print(page(), end="")
