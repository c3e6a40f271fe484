"""Training rates on a GPU, what each option is worth, timm beside; whether all is right there.

    python -m benchmarks.gpu --check      # everything, the most valuable first, in nine minutes
    python -m benchmarks.gpu              # the rates of all rows

After every finding NAME.json and NAME.md are written, so that an end by force loses little.
Without a CUDA device everything is "not measured"; --cpu does on the CPU, with small settings, what
it can. Bounds and their reasons are in benchmarks/gpu_check.py.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ablations import PAPER, get_regime
from benchmarks import gpu_check, gpu_rates
from benchmarks.gpu_check import Setting
from benchmarks.gpu_rates import Rates
from benchmarks.jobs import NOT_MEASURED, Finding, Job, run_all
from benchmarks.measure import RESULTS, provenance, write
from training.execution import ComputeOptions, has_compiler
from training.recipe import Precision

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
"""What a run on a GPU takes by itself comes first."""
PARTS = {
    "rates": ("How fast is it, from images to the optimizer?", 0.3),
    "options": ("What is each option worth?", 0.15),
    "resumed": ("Does a run that was stopped go on as if it had not been?", 0.1),
    "memory": ("Is a batch that does not fit answered by one that does?", 0.08),
    "waiting": ("Does an update make the processor wait for the GPU?", 0.05),
    "losses": ("Are the losses those of the CPU, uncompiled?", 0.12),
    "compiled": ("Are the losses those of the CPU, compiled?", 0.2),
}
"""Name to question and share of the time; what a part leaves over, those after it have as well."""
MARKS = (
    ("ResNet-50, one H100, fp16, eager, synthetic images", "4,292", "milabench"),
    ("ResNet-50, one H100, fp16, eager, a real loader", "2,734", "milabench"),
    ("ResNet-50, one H200, fp16, synthetic images", "4,868", "milabench"),
    ("ResNet-50, one H200, fp16, a loader of 8 CPUs", "2,204", "milabench"),
    ("ConvNeXt-L, one H200, fp16", "815", "milabench"),
)
"""Published training rates, images a second at 224 pixels."""


def jobs(
    rates: Rates, setting: Setting, steps: Sequence[str], precisions: Sequence[Precision]
) -> dict[str, list[Job]]:
    """The jobs of each part. The last row of the path, ConvNeXt-T, comes first everywhere."""
    references = {step.name for step in PAPER.steps if step.reference}
    path = [step for step in steps if step not in references] or list(steps)
    last, usual = path[-1], precisions[0]
    ends = list(dict.fromkeys((last, path[0])))
    threads = {"TORCHINDUCTOR_COMPILE_THREADS": str(setting.threads)}
    eager = [ComputeOptions(), ComputeOptions(rewritten=True)]

    def each(part: str, function: Any, *arguments: Any, exact: bool = False) -> Job:
        workspace = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if exact else {}
        words = ", ".join(str(word) for word in arguments if not isinstance(word, Rates | Setting))
        return Job(f"{part}: {words}", function, arguments, threads | workspace)

    compiled = [ComputeOptions(compile=True)]
    return {
        "rates": [each("rate", gpu_rates.rate, step, rates) for step in ends],
        "options": [each("options", gpu_rates.worth, step, rates) for step in ends],
        "resumed": [
            each("resumed", gpu_check.resumed, step, usual, exact, setting, exact=exact)
            for exact in (True, False)
            for step in ends
        ],
        "memory": [each("memory", gpu_check.answered, last, usual, setting)],
        "waiting": [
            each("waiting", gpu_check.waiting, step, precision, ema, setting)
            for step, precision, ema in zip((last, last, path[0]), precisions, (0.999, None, None))
        ],
        "losses": [
            each("losses", gpu_check.losses, step, precision, options, setting)
            for precision in precisions
            for step in (last, *(step for step in steps if step != last))
            for options in eager[: 1 + (step in path)]
        ],
        "compiled": [
            each("compiled", gpu_check.dropped, last, usual, setting),
            *(
                each("compiled", gpu_check.losses, step, precision, options, setting)
                for precision in precisions
                for step in (last, *(step for step in steps if step != last))
                for options in compiled
            ),
        ],
    }


def check(options: argparse.Namespace, steps: Sequence[str], folder: Path) -> None:
    """Ask everything, print what is found as it is found, and write it each time."""
    device, cores = "cpu" if options.cpu else "cuda", os.cpu_count() or 1
    missing = not options.cpu and not torch.cuda.is_available()
    many = 1 if options.cpu else max(1, min(8, cores // 2))
    rates = Rates(
        device,
        options.regime,
        options.resolution,
        options.batch,
        options.precisions[0],
        options.workers,
        options.warm,
        options.updates,
        cores,
    )
    batch, workers = 4 if options.cpu else 8, min(options.workers, 2)
    threads = max(1, cores // many)
    setting = Setting(device, options.regime, options.resolution, batch, workers, threads, folder)
    parts = jobs(rates, setting, steps, options.precisions)
    if not options.check:
        chosen = [Job(step, gpu_rates.rate, (step, rates)) for step in reversed(steps)]
        parts = {"rates": chosen}
    findings: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    name = ("gpu-check" if options.check else "gpu") + "-shown-on-cpu" * options.cpu
    about, started = torch.device("cpu" if missing else device), time.monotonic()
    end = started
    for part, asked in parts.items():
        end += 60 * options.minutes * (PARTS[part][1] if options.check else 1)
        processes = {"losses": min(many, 4), "compiled": many}.get(part, 1)
        for found in _answers(part, asked, processes, end, missing, options):
            findings[part].append(asdict(found))
            mark = {True: "held", False: "DID NOT HOLD", None: "-"}[found.held]
            seconds = round(time.monotonic() - started)
            print(f"{seconds:5} s  {part:<9} {mark:<12}  {found.what}: {found.text}", flush=True)
            arguments = {**vars(options), "steps": list(steps), "out": None}
            result = {"options": arguments, "seconds": seconds, "parts": findings}
            with contextlib.redirect_stdout(io.StringIO()):
                write(options.out / f"{name}.json", about, result)
            (options.out / f"{name}.md").write_text(page(provenance(about), result))
    print(f"written to {options.out / name}.json and .md")


def _answers(
    part: str,
    asked: Sequence[Job],
    processes: int,
    end: float,
    missing: bool,
    options: argparse.Namespace,
) -> Iterator[Finding]:
    why = ""
    if missing:
        why = "there is no CUDA device"
    elif part not in options.parts:
        why = "it was left out"
    elif part == "compiled" and not has_compiler(torch.device("cpu" if options.cpu else "cuda")):
        why = "torch.compile finds no compiler here"
    if why:
        yield from (Finding(job.what, None, f"{NOT_MEASURED}: {why}") for job in asked)
    else:
        yield from run_all(asked, processes, end)


def page(about: Mapping[str, str], result: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    parts: Mapping[str, Any] = result["parts"]
    found = [finding for part in parts.values() for finding in part]
    held, broken = ([f for f in found if f["held"] is wanted] for wanted in (True, False))
    rest = len(found) - len(held) - len(broken)
    lines = [
        "# A check of a GPU",
        "",
        f"{about['device']}, torch {about['torch']}, Python {about['python']}, code "
        f"{about['code_version']}, {about['measured']}; {result['seconds']} seconds.",
        "",
        f"**{len(held)} held, {len(broken)} did not, {rest} were not measured or have no bound.**",
        *(f"- did not hold: {finding['what']}: {finding['text']}" for finding in broken),
    ]
    for part, own in parts.items():
        lines += ["", f"## {PARTS[part][0]}", "", f"| {part} | held | |", "|---|---|---|"]
        for finding in own:
            word = {True: "yes", False: "**no**", None: ""}[finding["held"]]
            lines.append(f"| {finding['what']} | {word} | {finding['text'].replace('|', '/')} |")
    lines += ["", "## Published marks", "", "| | images/s | by |", "|---|---|---|"]
    lines += [f"| {what} | {rate} | {by} |" for what, rate, by in MARKS]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add = parser.add_argument
    add("--check", action="store_true", help="ask everything, in --minutes")
    add("--cpu", action="store_true", help="on the CPU, to see that it works")
    add("--regime", default="tiny", choices=["mini", "small", "tiny", "base"])
    add("--resolution", type=int, default=224, help="pixels")
    add("--batch", type=int, default=256, help="images per update, where rates are measured")
    add("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    add("--workers", type=int, default=12, help="processes that prepare images")
    add("--warm", type=int, default=10, help="updates before the clock starts")
    add("--updates", type=int, default=40, help="timed updates")
    add("--steps", nargs="*", help="names or numbers; all rows if none is given")
    add("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="of the check")
    add("--minutes", type=float, default=9, help="the check ends then")
    add("--out", type=Path, default=RESULTS, help="folder for what is written")
    options = parser.parse_args(arguments)
    regime = get_regime(options.regime)
    try:
        chosen = [PAPER.step(name, regime) for name in options.steps or ()]
    except ValueError as error:
        parser.error(str(error))
    if not chosen:
        every = PAPER.steps_in(regime)
        chosen = [step for step in every if options.check or not step.reference]
    with tempfile.TemporaryDirectory() as folder:
        check(options, [step.name for step in chosen], Path(folder))


if __name__ == "__main__":
    main()
