"""What a check of a GPU found, as a page."""

from collections.abc import Mapping
from typing import Any

MARKS = (
    ("ResNet-50, one H100, fp16, eager, synthetic images", "4,292", "milabench"),
    ("ResNet-50, one H100, fp16, eager, a real loader", "2,734", "milabench"),
    ("ResNet-50, one H200, the same", "4,868", "milabench"),
    ("ResNet-50, one A100", "2,470", "NVIDIA"),
    ("ConvNeXt-T, one H100", "about 3,200", "nobody's measurement: from ratios on other cards"),
)
"""Published training rates, images a second at 224 pixels."""


def page(about: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    parts: Mapping[str, Any] = result["parts"]
    found = [finding for part in parts.values() for finding in part["findings"]]
    held, broken = ([f for f in found if f["held"] is wanted] for wanted in (True, False))
    lines = [
        "# A check of a GPU",
        "",
        f"{about['device']}, torch {about['torch']}, Python {about['python']}, code "
        f"{about['code_version']}, "
        f"{about['measured']}; {result['seconds']} seconds. Written by `python -m benchmarks.gpu "
        "--check`; bounds and "
        "their reasons are in benchmarks/gpu_check.py.",
        "",
        f"**{len(held)} held, {len(broken)} did not, {len(found) - len(held) - len(broken)} were "
        "not measured or have "
        "no bound.**",
    ]
    for finding in broken:
        lines.append(f"- did not hold: {finding['what']}: {finding['said']}")
    for name, part in parts.items():
        lines += ["", f"## {part['question']}", "", f"| {name} | held | |", "|---|---|---|"]
        for finding in part["findings"]:
            held_word = {True: "yes", False: "**no**", None: ""}[finding["held"]]
            lines.append(
                f"| {finding['what']} | {held_word} | {finding['said'].replace('|', '/')} |"
            )
    lines += ["", "## Published marks", "", "| | images/s | by |", "|---|---|---|"]
    lines += [f"| {what} | {rate} | {by} |" for what, rate, by in MARKS]
    return "\n".join(lines) + "\n"
