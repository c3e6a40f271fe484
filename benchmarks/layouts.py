"""The trial's choice against every fixed layout, over all 17 rows: python -m benchmarks.layouts
--help."""

import argparse
import statistics
from functools import partial
from itertools import repeat
from typing import Any

import torch

from ablations import PAPER, get_regime
from benchmarks.measure import interleaved, write
from training.autotune import Work, choose
from training.execution import ComputeOptions
from training.recipe import Recipe
from training.update import update


def _step(work: Work, options: ComputeOptions) -> None:
    with options.applied():
        train_state = work.train_state(options, work.precision)
        update(train_state, 0, repeat(work.noise(work.images)), lr=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regime", default="mini", choices=["mini", "small", "tiny", "base"])
    parser.add_argument("--resolution", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--steps", nargs="*", help="names or numbers; all 17 rows if none is given")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each layout")
    parser.add_argument(
        "--seconds", type=float, default=12, help="limit for the timings of one row"
    )
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    regime, cores = get_regime(options.regime), torch.get_num_threads()
    default = ComputeOptions(channels_last=False, threads=cores)
    counts = (
        sorted({cores, max(1, cores // 2), 1}, reverse=True) if device.type == "cpu" else [cores]
    )
    fixed = [
        ComputeOptions(last, False, count, rewritten)
        for count in counts
        for last, rewritten in ((True, False), (False, False), (True, True))
    ]
    chosen = [PAPER.step(name, regime) for name in options.steps or ()] or [
        step for step in PAPER.steps_in(regime) if not step.reference
    ]
    rows: list[dict[str, Any]] = []
    print(f"{'step':<22} {'choice':<26} images/s  of best fixed  of torch's defaults")
    for step in chosen:
        work = Work(
            PAPER.architecture(step, regime, 10),
            Recipe(batch_size=options.batch, drop_path=0.1),
            options.resolution,
            options.precision,
            device,
        )
        choice, _ = choose(work, 10**6 // options.batch, may_compile=False)
        steps = {str(each): partial(_step, work, each) for each in dict.fromkeys([*fixed, choice])}
        rates = interleaved(steps, options.batch, options.rounds, options.seconds)
        median = {name: rate["median"] for name, rate in rates.items()}
        own = median[str(choice)]
        best, plain = max(median.values()), median[str(default)]
        rows.append(
            {
                "step": step.name,
                "choice": str(choice),
                "of_best": round(own / best, 3),
                "of_default": round(own / plain, 3),
                "images_per_second": rates,
            }
        )
        print(
            f"{step.name:<22} {choice!s:<26} {own:>8,.0f} {own / best:>14.2f} {own / plain:>20.2f}",
            flush=True,
        )

    worst = min(row["of_best"] for row in rows)
    gain = statistics.median(row["of_default"] for row in rows)
    # A fixed layout that is best for the whole study, in time summed over the rows.
    single = {
        str(each): sum(1 / row["images_per_second"][str(each)]["median"] for row in rows)
        for each in fixed
    }
    ours = sum(1 / row["images_per_second"][row["choice"]]["median"] for row in rows)
    print(
        f"worst row: {worst:.2f} of the best fixed layout (goal 0.97); median {gain:.2f} times "
        "torch's defaults (1.3)"
    )
    print(
        f"all rows together: {min(single.values()) / ours:.2f} times the best single layout for "
        "them all"
    )
    summary = {
        "worst_of_best": worst,
        "median_of_default": gain,
        "of_best_single": min(single.values()) / ours,
    }
    arguments = {**vars(options), "steps": [step.name for step in chosen]}
    size = f"{options.regime}-{options.resolution}-{options.batch}"
    name = f"layouts-{size}-{options.precision}-{device.type}"
    write(
        name,
        device,
        {"options": arguments, "default": str(default), "summary": summary, "rows": rows},
    )


if __name__ == "__main__":
    main()
