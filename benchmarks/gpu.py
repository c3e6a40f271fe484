"""All 17 rows on a CUDA device: images/s, share of the peak FLOPs, peak memory, time waiting for
data; timm beside.

With --check, in at most nine minutes: whether each network computes what the CPU computes, whether
a run can be stopped and resumed, whether an update waits, what a lack of memory leads to, and how
fast two rows are; written as JSON and as a page. Without a CUDA device everything is "not
measured"; --cpu does on the CPU, with small settings, what it can.
Run as: python -m benchmarks.gpu --help
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ablations import PAPER, get_regime
from benchmarks import gpu_check, gpu_page, gpu_rates
from benchmarks.gpu_check import Setting
from benchmarks.gpu_rates import Rates, measure
from benchmarks.jobs import NOT_MEASURED, Finding, Job, compiler_threads, run_all
from benchmarks.measure import RESULTS, write
from training.device import set_up
from training.execution import ComputeOptions, has_compiler
from training.recipe import Precision

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
"""What a run on a GPU takes by itself comes first."""


@dataclass(frozen=True)
class Part:
    """One question of the check."""

    name: str
    question: str
    share: float
    """Of the check's time; what a part leaves over, those after it have as well."""
    processes: int
    jobs: Sequence[Job]


def parts(
    setting: Setting, rates: Rates, steps: Sequence[str], precisions: Sequence[Precision]
) -> list[Part]:
    """The check's questions, the quickest first, the compiler's last: it takes whatever time is
    left."""
    references = {step.name for step in PAPER.steps if step.reference}
    path = [step for step in steps if step not in references] or steps
    first, last = path[0], path[-1]
    cores = os.cpu_count() or 1
    many = max(1, min(8, cores // 2)) if setting.device == "cuda" else 1
    few = (ComputeOptions(), ComputeOptions(rewritten=True))
    eager = [
        Job(
            f"{step}, eager",
            gpu_check.losses,
            (step, tuple(precisions), few[: 1 + (step in path)], setting),
        )
        for step in steps
    ]
    compiled = [
        Job(
            f"{last}, {precisions[0]}, stochastic depth compiled",
            gpu_check.drawn,
            (last, precisions[0], setting),
            compiler_threads(many),
        )
    ]
    compiled += [
        Job(
            f"{step}, {precision}, compiled",
            gpu_check.losses,
            (step, (precision,), (ComputeOptions(compile=True),), setting),
            compiler_threads(many),
        )
        for precision in precisions
        for step in steps
    ]
    ends = list(dict.fromkeys((first, last)))
    stopped = [
        Job(
            f"{step}, {precision}, stopped and resumed{', deterministic' * exact}",
            gpu_check.resumed,
            (step, precision, exact, setting),
            {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if exact else {},
        )
        for exact in (True, False)
        for step, precision in zip(ends, precisions)
    ]
    waits = [
        Job(
            f"{step}, {precision}, images from the loader",
            gpu_check.waiting,
            (step, precision, ema, setting),
        )
        for step, precision, ema in zip((first, last, last), precisions, (None, None, 0.999))
    ]
    memory = [
        Job(
            f"{last}, a batch that does not fit", gpu_check.answered, (last, precisions[0], setting)
        )
    ]
    fast = [
        Job(f"rate of {step}", gpu_rates.found, (step, rates, setting.device, cores))
        for step in ends
    ]
    return [
        Part("losses", "Are the losses those of the CPU, uncompiled?", 0.15, min(many, 4), eager),
        Part(
            "resumed", "Does a run that was stopped go on as if it had not been?", 0.12, 1, stopped
        ),
        Part("waiting", "Does an update make the processor wait for the GPU?", 0.05, 1, waits),
        Part("memory", "Is a batch that does not fit answered by one that does?", 0.08, 1, memory),
        Part("rates", "How fast is it?", 0.35, 1, fast),
        Part("compiled", "Are the losses those of the CPU, compiled?", 0.25, many, compiled),
    ]


def check(options: argparse.Namespace, steps: Sequence[str]) -> dict[str, object]:
    """Ask everything, print what is found as it is found, and write it after each part."""
    device = "cpu" if options.cpu else "cuda"
    missing = not options.cpu and not torch.cuda.is_available()
    started, spent = time.monotonic(), 0.0
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        threads = max(1, (os.cpu_count() or 1) // 4)
        setting = Setting(
            device,
            options.regime,
            options.resolution,
            4 if options.cpu else 8,
            3,
            min(options.workers, 2),
            threads,
            Path(folder),
        )
        asked = parts(setting, _rates(options), steps, options.precisions)
        findings: dict[str, list[Finding]] = {}
        for part in asked:
            spent += 60 * options.minutes * part.share
            findings[part.name] = []
            for found in _answers(part, started + spent, missing, options):
                findings[part.name].append(found)
                mark = {True: "held", False: "DID NOT HOLD", None: "-"}[found.held]
                print(
                    f"{time.monotonic() - started:6.0f} s  {part.name:<9} {mark:<12}  "
                    f"{found.what}: {found.said}",
                    flush=True,
                )
            result = {
                "options": {**vars(options), "steps": list(steps), "out": None},
                "seconds": round(time.monotonic() - started),
                "parts": {
                    each.name: {
                        "question": each.question,
                        "findings": [asdict(one) for one in found],
                    }
                    for each, found in zip(asked, findings.values())
                },
            }
            name = "gpu-check-shown-on-cpu" if options.cpu else "gpu-check"
            about = write(
                name, torch.device("cpu" if missing else device), result, folder=options.out
            )
            (options.out / f"{name}.md").write_text(gpu_page.page(about, result))
    return result


def _answers(
    part: Part, end: float, missing: bool, options: argparse.Namespace
) -> Iterator[Finding]:
    why = (
        "there is no CUDA device"
        if missing
        else "it was left out"
        if part.name not in options.parts
        else ""
    )
    if (
        part.name == "compiled"
        and not why
        and not has_compiler(torch.device("cpu" if options.cpu else "cuda"))
    ):
        why = "torch.compile finds no compiler here"
    if why:
        yield from (Finding(job.what, None, f"{NOT_MEASURED}: {why}") for job in part.jobs)
    else:
        yield from run_all(part.jobs, part.processes, end)


def _rates(options: argparse.Namespace) -> Rates:
    return Rates(
        options.regime,
        options.resolution,
        options.batch,
        options.precision,
        options.workers,
        options.warm,
        options.updates,
        trial=not (options.cpu and options.check),
    )


def rows(options: argparse.Namespace, steps: Sequence[str]) -> None:
    """Every row's rate."""
    device = torch.device("cpu" if options.cpu or not torch.cuda.is_available() else "cuda")
    set_up(device, options.precision)
    found: list[dict[str, object]] = []
    end = time.monotonic() + 60 * options.minutes
    for step in steps:
        if device.type == "cpu" and not options.cpu:
            found.append({"step": step, "images_per_second": NOT_MEASURED})
        elif time.monotonic() > end:
            found.append({"step": step, "images_per_second": f"{NOT_MEASURED}: out of time"})
        else:
            found.append(measure(step, _rates(options), device))
        print(found[-1], flush=True)
    arguments = {**vars(options), "steps": list(steps), "out": None}
    name = "gpu-shown-on-cpu" if options.cpu else "gpu"
    write(name, device, {"options": arguments, "rows": found}, folder=options.out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="whether all is right, and how fast two rows are"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="run on the CPU, with small settings, to see that it works",
    )
    parser.add_argument("--regime", default="tiny", choices=["mini", "small", "tiny", "base"])
    parser.add_argument("--resolution", type=int, default=224, help="pixels")
    parser.add_argument(
        "--batch", type=int, default=256, help="images per update, where rates are measured"
    )
    parser.add_argument(
        "--precision", default="bf16", choices=["fp32", "bf16"], help="where rates are measured"
    )
    parser.add_argument(
        "--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS, help="of the check"
    )
    parser.add_argument("--workers", type=int, default=12, help="processes that prepare images")
    parser.add_argument("--warm", type=int, default=10, help="updates before the clock starts")
    parser.add_argument("--updates", type=int, default=40, help="timed updates")
    parser.add_argument("--steps", nargs="*", help="names or numbers; all rows if none is given")
    parser.add_argument(
        "--parts",
        nargs="+",
        help="of the check; all if none is given",
        default=["losses", "resumed", "waiting", "memory", "rates", "compiled"],
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=9,
        help="the check ends then; rows begun later are left out",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    options = parser.parse_args(arguments)

    regime = get_regime(options.regime)
    chosen = [PAPER.step(name, regime) for name in options.steps or ()] or [
        step for step in PAPER.steps_in(regime) if options.check or not step.reference
    ]
    steps = [step.name for step in chosen]
    (check if options.check else rows)(options, steps)


if __name__ == "__main__":
    main()
